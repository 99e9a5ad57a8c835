"""What `penstock dlq` says of letters whose bytes no worker could read."""

import msgspec
import pytest

from gateways.cli import dlq_show
from gateways.cli.dlq_letters import Letter, read_letter
from gateways.cli.dlq_resolve import Tally
from gateways.cli.dlq_write import Refusal
from tests.gateways.cli.records import letter


def letter_of(**changes: object) -> Letter:
    """Return a dead letter whose record is changed."""
    found = read_letter(letter()._replace(**changes))  # type: ignore[arg-type] # fields of a record
    assert isinstance(found, Letter)
    return found


@pytest.mark.parametrize("raw", [b'{"a": NaN}', b'{"a": -1e999}', b'{"a": "\\ud83d"}', b"[" * 100_000])
def test_a_value_that_only_python_takes_for_json_is_shown_as_it_is(raw: bytes) -> None:
    found = letter_of(value=raw)

    document = msgspec.json.decode(dlq_show.as_json(found, "open").encode())
    details = dlq_show.details(found, "open", None).encode()

    assert document["value"] == {"text": raw.decode()}
    assert details.endswith(raw)


def test_a_value_that_is_json_is_shown_as_json() -> None:
    found = letter_of(value=b'{"a": ["\xc3\xa4", 10000000000000000000000, 1.5]}')

    document = msgspec.json.decode(dlq_show.as_json(found, "open"))

    assert document["value"]["json"]["a"][::2] == ["\u00e4", 1.5]
    assert "10000000000000000000000" in dlq_show.as_json(found, "open")


def test_a_time_beyond_the_calendar_is_its_end() -> None:
    assert dlq_show.instant(letter_of(timestamp_ms=10**18)) == "9999-12-31T23:59:59.999Z"


def test_a_letter_that_stays_open_is_named_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    found = letter_of(headers=[("ce_id", b"e\x1b[2J"), *letter().headers])

    Tally().refuse(Refusal(found, "too large"))

    assert capsys.readouterr().err == "0/0 e\ufffd[2J: too large\n"
