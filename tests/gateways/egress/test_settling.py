"""What is put aside is on Kafka, or still in hand."""

from collections.abc import Callable

import pytest

from contracts.codec import Record, delivery_note
from contracts.errors import Busy, LogUnavailable, TooLarge
from contracts.topics import Topics
from gateways.egress import settling
from gateways.egress.ledger import Entry, Ledger
from gateways.egress.settling import Settler
from tests.suites.egress import result_item


class Log:
    """Takes records after it has failed so often."""

    def __init__(self, *failures: Exception, largest: int = 10**6) -> None:
        self._failures = list(failures)
        self._largest = largest
        self.records: list[Record] = []

    async def produce(self, record: Record) -> None:
        if self._failures:
            raise self._failures.pop(0)
        if len(record.value or b"") > self._largest:
            message = "too large"
            raise TooLarge(message)
        self.records.append(record)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_AGAIN_S", 0.0)


def entry() -> Entry:
    made = Entry(result_item(7), Ledger("results", 0), 7, 1000.0)
    made.destination = "queue-1"
    return made


@pytest.mark.parametrize(
    "failure", [lambda: LogUnavailable("away"), lambda: Busy("full", retry_after_s=0.0)], ids=["away", "full"]
)
async def test_putting_aside_ends_only_with_the_brokers_ack(failure: Callable[[], Exception]) -> None:
    log = Log(failure(), failure(), failure())

    await Settler("door", Topics(), log.produce, "app").park(entry(), 2, 300.0, "locked", "row")

    (record,) = log.records
    assert (record.topic, record.key) == ("penstock.deliveries.5m.v1", b"key-7")
    note, headers = delivery_note(record.headers)
    assert headers == result_item(7).headers
    assert (note.attempts, note.reason, note.message, note.first_at_ms) == (2, "locked", "row", 1_000_000)
    assert (note.topic, note.partition, note.offset, note.app_id) == ("penstock.results.v1", 0, 7, "app")


async def test_what_no_longer_fits_a_record_is_named_on_the_undelivered_topic() -> None:
    log = Log(largest=10)

    await Settler("door", Topics(), log.produce, "app").park(entry(), 1, 5.0, "locked", "row")

    (record,) = log.records
    note, _ = delivery_note(record.headers)
    assert (record.topic, record.value, note.state) == ("penstock.undelivered.v1", b"", "exhausted")
    assert note.is_value_left_out


async def test_a_fault_of_the_code_is_not_taken_for_an_ack() -> None:
    log = Log(RuntimeError("a fault"))

    with pytest.raises(RuntimeError):
        await Settler("door", Topics(), log.produce, "app").give_up(entry(), "refused", 1, "gone", "")
    assert log.records == []
