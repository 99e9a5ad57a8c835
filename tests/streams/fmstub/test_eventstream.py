"""Frames, read back with botocore's decoder."""

import json
from typing import Any

from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.fmstub import eventstream


@settings(max_examples=25)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5), st.integers(0, 1000))
def test_botocore_reads_back_what_was_encoded(payload: dict[str, str], number: int) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.event("contentBlockDelta", {"delta": payload}, number))

    event: Any = next(buffer)

    assert event.headers[":event-type"] == "contentBlockDelta"
    decoded = json.loads(event.payload)
    assert decoded["delta"] == {key: value.encode("utf-8", "replace").decode() for key, value in payload.items()}
    assert decoded["p"]


def test_an_exception_frame_names_its_type() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.exception("throttlingException", "slow down"))

    event: Any = next(buffer)

    assert event.headers[":message-type"] == "exception"
    assert event.headers[":exception-type"] == "throttlingException"
