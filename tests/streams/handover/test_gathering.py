"""Which records make a job of the batch API, and which go to the workers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.codec import redrive_headers
from contracts.errors import ConfigError
from contracts.payloads import Redrive
from contracts.settings import Settings
from streams.handover.choosing import Ways, record_id
from streams.handover.gathering import Gathering
from tests.streams.handover.support import make_settings, record


@pytest.fixture
def ways() -> Iterator[Ways]:
    made = Ways(make_settings())
    yield made
    made.close()


def lines(gathering: Gathering) -> list[str]:
    """Return the record ids of the one job that was gathered."""
    files = gathering.close()
    return [json.loads(line)["recordId"] for path in files.values() for line in path.read_text("utf-8").splitlines()]


def test_a_record_id_is_eleven_characters_that_name_a_place() -> None:
    ids = [record_id(0, 0), record_id(35, 36), record_id(999, 10**12)]

    assert ids[:2] == ["00000000000", "00z00000010"]
    assert {len(name) for name in ids} == {11}
    assert (int(ids[2][:3], 36), int(ids[2][3:], 36)) == (999, 10**12)


def test_a_line_is_a_converse_request_without_model_and_metadata(ways: Ways) -> None:
    found = ways.line(ways.job(record(5)), "x")

    assert found is not None
    assert json.loads(found[1]) == {
        "recordId": "x",
        "modelInput": {
            "messages": [{"role": "user", "content": [{"text": "ticket 5"}]}],
            "inferenceConfig": {"maxTokens": 512},
        },
    }


def test_events_that_no_batch_suits_are_left_to_the_workers(ways: Ways, tmp_path: Path) -> None:
    gathering = Gathering(ways, tmp_path)
    for found in (
        record(0),
        record(1, source="elsewhere"),
        record(2, {"no": "text"}),
        record(3, parked_by="penstock", attempts=1),
        record(4, parked_by="another-app"),
        record(5, parked_by="penstock"),
    ):
        gathering.take(found)

    assert gathering.ranges == {"0": (0, 6)}
    assert lines(gathering) == [record_id(0, 0), record_id(0, 5)]


def test_a_near_deadline_is_left_to_the_workers() -> None:
    hasty = Ways(make_settings(deadline_s=60))

    assert hasty.line(hasty.job(record(0)), "x") is None


def test_a_full_job_is_due_and_one_with_too_few_records_is_none(ways: Ways, tmp_path: Path) -> None:
    few, full = Gathering(ways, tmp_path / "a"), Gathering(ways, tmp_path / "b")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    few.take(record(0))
    for offset in range(3):
        full.take(record(offset, partition=offset))

    assert (few.is_due, few.close()) == (False, {})
    assert full.is_due
    assert full.ranges == {"0": (0, 1), "1": (1, 2), "2": (2, 3)}
    assert list(full.close()) == ["m"]


def test_a_hand_over_names_its_offsets_and_a_token_for_each_job(ways: Ways, tmp_path: Path) -> None:
    gathering = Gathering(ways, tmp_path)
    gathering.take(record(4))
    gathering.close()
    state = gathering.hand_over(["m"], {"results": (1, 2)}, {"results": "a"}, "b")

    assert (state.state, state.ranges, state.answer_starts) == ("gathered", {"0": (4, 5)}, {"results": (1, 2)})
    assert (state.log, state.answer_logs) == ("b", {"results": "a"})
    assert state.parts["m"].token.isalnum()
    assert state.parts["m"].input_uri == f"s3://jobs/in/{state.id}/0.jsonl"


def test_a_configuration_without_a_batch_api_is_refused() -> None:
    document = make_settings().model_dump(mode="json", exclude_defaults=True)
    del document["providers"]["p"]["batch_api"]

    with pytest.raises(ConfigError, match="batch_api"):
        Ways(Settings.model_validate(document))


def test_an_event_that_was_put_back_for_another_application_is_left_to_it(ways: Ways, tmp_path: Path) -> None:
    gathering = Gathering(ways, tmp_path)
    for offset, app_id in enumerate(["penstock", "another-app", ""]):
        found, redrive = record(offset), Redrive(partition=0, offset=0, timestamp_ms=0, count=1, at="", app_id=app_id)
        gathering.take(found._replace(pairs=tuple(redrive_headers(found.pairs, redrive))))

    assert lines(gathering) == [record_id(0, 0), record_id(0, 2)]
