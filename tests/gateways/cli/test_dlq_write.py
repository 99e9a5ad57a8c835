"""What `penstock dlq` writes, against a client that is not there; the real one is in tests/kafka/test_dlq.py."""

from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from contracts.codec import dead_letter, dead_letter_headers, resolution
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, ProducerSettings
from gateways.cli import dlq_write
from gateways.cli.dlq_letters import Letter, read_letter
from gateways.cli.dlq_progress import Told
from gateways.cli.dlq_resolve import Stop, Tally, carry_out
from gateways.cli.dlq_units import Discard, Redriving
from gateways.cli.dlq_write import Writer
from producers.fenced import TakenOver
from tests.gateways.cli.records import letter

FENCED = KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))


class SmallClient:
    """A producer with room for one record until it is polled."""

    def __init__(self, *, empties: bool = True) -> None:
        self.written: list[str] = []
        self.committed = self.aborted = 0
        self._empties = empties
        self._room = 1

    def produce(self, topic: str, **_: Any) -> None:
        if not self._room:
            message = "Local: Queue full"
            raise BufferError(message)
        self._room -= 1
        self.written.append(topic)

    def poll(self, _timeout_s: float) -> None:
        self._room += self._empties

    def purge(self) -> None:
        pass

    def begin_transaction(self) -> None:
        self.written.clear()

    def flush(self, _timeout_s: float) -> int:
        return 0

    def commit_transaction(self, _timeout_s: float) -> None:
        self.committed += 1

    def abort_transaction(self, _timeout_s: float) -> None:
        self.aborted += 1


def writer_to(client: SmallClient, monkeypatch: pytest.MonkeyPatch, name: str = "some-letters") -> Writer:
    monkeypatch.setattr(dlq_write, "Producer", lambda *_, **__: client)
    return Writer(KafkaSettings(), ProducerSettings(), name)


def letters(count: int) -> list[Letter]:
    found = [read_letter(letter()) for _ in range(count)]
    return [one for one in found if isinstance(one, Letter)]


def test_a_batch_beyond_the_clients_buffer_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SmallClient()

    refused = writer_to(client, monkeypatch).write([Discard("me", "old")(one) for one in letters(5)])

    assert refused == []
    assert len(client.written) == 5
    assert (client.committed, client.aborted) == (1, 0)


def test_a_buffer_that_stays_full_leaves_the_letters_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlq_write, "_LIMIT_S", 0.0)
    client = SmallClient(empties=False)

    refused = writer_to(client, monkeypatch).write([Discard("me", "old")(one) for one in letters(2)])

    assert {one.error for one in refused} == {"producer queue is full"}
    assert client.committed == 0


def test_a_redrive_that_another_one_has_overtaken_says_so_however_the_client_raises_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SmallClient()

    def flush(_timeout_s: float) -> int:
        message = "returned a result with an exception set"
        raise SystemError(message) from FENCED

    monkeypatch.setattr(client, "flush", flush)

    writer = writer_to(client, monkeypatch)

    with pytest.raises(TakenOver):
        writer.write([Discard("me", "old")(one) for one in letters(2)])
    writer.close()


def test_a_redrive_whose_record_is_refused_because_of_a_fatal_error_says_which_one_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SmallClient()

    def produce(*_: Any, **__: Any) -> None:
        # Only the next transaction of a client tells what was wrong with the last one.
        monkeypatch.setattr(client, "begin_transaction", begin_transaction)
        raise KafkaException(KafkaError(KafkaError._FATAL, "Local: Fatal error"))

    def begin_transaction() -> None:
        raise FENCED

    monkeypatch.setattr(client, "produce", produce)

    with pytest.raises(TakenOver):
        writer_to(client, monkeypatch).write([Discard("me", "old")(one) for one in letters(2)])


def test_a_redrive_that_is_overtaken_in_the_instant_of_its_commit_asks_once_more_what_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SmallClient()

    def commit_transaction(_timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError.UNKNOWN, "Unknown broker error", txn_requires_abort=True))

    def abort_transaction(_timeout_s: float) -> None:
        raise FENCED

    monkeypatch.setattr(client, "commit_transaction", commit_transaction)
    monkeypatch.setattr(client, "abort_transaction", abort_transaction)

    with pytest.raises(TakenOver):
        writer_to(client, monkeypatch).write([Discard("me", "old")(one) for one in letters(2)])


GAPS = KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "a gap", fatal=True))
NO_TRANSACTIONS = KafkaException(KafkaError(KafkaError._NOT_CONFIGURED, "requires transactional.id"))


@pytest.mark.parametrize("step", ["produce", "flush", "flush beside a report"])
def test_a_client_without_transactions_that_breaks_is_told_as_an_outage(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SmallClient()

    def produce(*_: Any, **__: Any) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL, "Local: Fatal error"))

    def flush(_timeout_s: float) -> int:
        if step == "flush":
            raise GAPS
        message = "returned a result with an exception set"
        raise SystemError(message) from GAPS

    def begin_transaction() -> None:
        raise NO_TRANSACTIONS

    name = step.split(maxsplit=1)[0]
    monkeypatch.setattr(client, name, {"produce": produce, "flush": flush}[name])
    monkeypatch.setattr(client, "begin_transaction", begin_transaction)

    with pytest.raises(LogUnavailable, match="Fatal error" if step == "produce" else "a gap"):
        writer_to(client, monkeypatch, "").write([Discard("me", "old")(one) for one in letters(2)])


EVENTS = "penstock.events.standard.v1"
LETTERS = "penstock.dead-letters.v1"


class RefusingClient(SmallClient):
    """Does not confirm its first events, which spoils a transaction, too."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.confirmed: list[str] = []
        self._refusals = refusals

    def abort_transaction(self, _timeout_s: float) -> None:
        self.written.clear()

    def commit_transaction(self, _timeout_s: float) -> None:
        self.confirmed += self.written

    def flush(self, _timeout_s: float) -> int:
        if EVENTS in self.written and self._refusals:
            self._refusals -= 1
            return 1
        return 0


def of_one_event(*offsets: int) -> list[Letter]:
    """Return letters at some offsets about one and the same event."""
    record = letter()
    why = dead_letter(record.headers)
    assert why is not None
    headers = dead_letter_headers(record.headers[:-1], msgspec.structs.replace(why, timestamp_ms=5))
    found = [read_letter(record._replace(offset=offset, headers=[*headers])) for offset in offsets]
    return [one for one in found if isinstance(one, Letter)]


def redriving() -> Redriving:
    return Redriving(frozenset({EVENTS}), lambda _topic: [0, 1], "me", "", None)


def test_words_that_are_no_text_are_kept_as_far_as_they_are() -> None:
    (one,) = of_one_event(0)
    resolved = resolution(Discard("me", "\udcff no text")(one).records[-1].headers)

    assert resolved is not None
    assert resolved.why == "? no text"


def redrive(writer: Writer, make: Redriving, found: list[Letter]) -> Tally:
    tally = Tally()
    carry_out(writer, found, make, None, Told("redriven", len(found)), Stop(), tally)
    return tally


def test_letters_of_an_event_that_could_not_be_put_back_all_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both in one transaction, and then the first one in its own.
    client, make = RefusingClient(2), redriving()
    writer = writer_to(client, monkeypatch)

    refused = redrive(writer, make, of_one_event(0, 1))
    later = redrive(writer, make, of_one_event(2))

    assert (refused.done, refused.refused, later.done) == (0, 2, 1)
    assert client.confirmed == [EVENTS, LETTERS]


def test_without_transactions_letters_of_an_event_that_was_not_confirmed_stay_open_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, make = RefusingClient(1), redriving()
    writer = writer_to(client, monkeypatch, "")

    refused = redrive(writer, make, of_one_event(0, 1))
    assert (refused.done, refused.refused, client.written) == (0, 2, [EVENTS])
    later = redrive(writer, make, of_one_event(2))

    assert (later.done, client.written) == (1, [EVENTS, EVENTS, LETTERS])


def test_an_event_that_is_back_though_that_could_not_be_noted_is_not_put_back_for_its_next_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, make = RefusingClient(0), redriving()
    writer = writer_to(client, monkeypatch, "")
    monkeypatch.setattr(client, "flush", lambda _timeout_s: int(client.written[-1:] == [LETTERS]))
    redrive(writer, make, of_one_event(0))
    monkeypatch.setattr(client, "flush", lambda _timeout_s: 0)

    later = redrive(writer, make, of_one_event(1))

    assert (later.done, client.written) == (1, [EVENTS, LETTERS, LETTERS])


def test_letters_of_an_event_that_is_too_large_all_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    client = RefusingClient(0)
    monkeypatch.setattr(dlq_write, "Producer", lambda *_, **__: client)
    writer = Writer(KafkaSettings(), ProducerSettings(max_record_bytes=1024), "some-letters")
    found = [Letter(one.record._replace(value=b"x" * 1024), one.why) for one in of_one_event(0, 1)]

    refused = redrive(writer, redriving(), found)

    assert (refused.done, refused.refused, client.confirmed) == (0, 2, [])
