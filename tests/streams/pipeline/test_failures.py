"""The right reaction to each fault: retry, hold, expire."""

import asyncio
from datetime import timedelta
from weakref import WeakSet

import pytest
from structlog.testing import capture_logs

from contracts.codec import dead_letter, format_time
from contracts.envelope import Event
from contracts.errors import Busy, LogUnavailable
from contracts.metrics import REGISTRY
from contracts.payloads import EXPIRED_TYPE, Message
from streams.engine.gate import OUTAGE_FAILURES
from streams.engine.item import TP, State
from streams.engine.ledger import Ledger
from streams.steps.prompt import PromptTemplate
from tests.streams.pipeline.support import EVENTS, PARTITION, Bench, event, headers_of, ids_of, make_settings
from tests.streams.virtual_clock import now_at, settled

TRANSIENT = ["throttled", "provider_unavailable", "provider_timeout"]
# What pauses a model, and how many in a row.
FAULTS = {
    "access_denied": 1, "model_not_found": 1, "quota_exhausted": 1, "unknown_host": 1,
    "certificate_refused": OUTAGE_FAILURES,
}  # fmt: skip
PAUSES = {"model.paused", "model.resumed"}


def keyed(count: int) -> list[Event]:
    return [event(n, extensions={"partitionkey": f"k{n}"}) for n in range(count)]


@pytest.mark.parametrize("error", TRANSIENT)
async def test_two_transient_failures_and_a_success_are_three_attempts(error: str) -> None:
    bench = await Bench([{"times": 2, "error": error}]).run(event())

    assert (bench.result().attempts, bench.fake.calls["e0"], bench.letters) == (3, 3, [])


async def test_attempts_that_are_used_up_end_in_a_dead_letter_with_all_failures() -> None:
    settings = make_settings({"retry": {"max_attempts": 3}})
    bench = await Bench([{"error": "throttled"}], settings).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.disposition, letter.attempts) == ("attempts_exhausted", "exhausted", 3)
    assert [(note.attempt, note.reason) for note in letter.failures] == [(n, "throttled") for n in (1, 2, 3)]


async def test_a_timeout_is_noted_as_possibly_billed() -> None:
    settings = make_settings({"retry": {"max_attempts": 1}})
    bench = await Bench([{"error": "provider_timeout"}], settings).run(event())

    assert [note.possibly_billed for note in dead_letter(bench.letters[0].headers).failures] == [True]


async def test_a_wait_the_provider_asks_for_is_kept() -> None:
    bench = Bench([{"times": 1, "error": "throttled", "retry_after_s": 40}])
    start_at = now_at()
    await bench.run(event())

    assert 40 <= (now_at() - start_at).total_seconds() < 41


async def test_a_resting_event_holds_its_key_and_no_slot() -> None:
    bench = await Bench([{"times": 1, "error": "throttled", "retry_after_s": 60}], in_flight=1).start()
    await bench.send(event(0), event(1))
    other = event(2, extensions={"partitionkey": "other"})
    await bench.send(other)
    await asyncio.sleep(30)

    assert ids_of(bench.terminals) == ["e2"]
    assert next((item.state, item.reason) for item in bench.engine.held) == (State.RESTING, "throttled")

    await bench.idle()

    assert ids_of(bench.terminals) == ["e2", "e0", "e1"]


async def test_an_event_past_its_deadline_expires_without_a_call() -> None:
    late = event(extensions={"expirytime": format_time(now_at() - timedelta(seconds=1))})
    bench = await Bench().run(late)

    assert (bench.marker().status, bench.marker().reason, bench.marker().attempts) == (
        "expired", "deadline_exceeded", 0,
    )  # fmt: skip
    assert (headers_of(bench.terminals[0])["ce_type"].decode(), bench.fake.calls, bench.letters) == (
        EXPIRED_TYPE,
        {},
        [],
    )


async def test_the_deadline_of_the_route_counts_from_the_record_not_from_the_intake() -> None:
    bench = await Bench(settings=make_settings({"deadline_s": 10})).start()
    accepted_ms = int(now_at().timestamp() * 1000) - 11_000
    await bench.send(event(), timestamp_ms=accepted_ms)
    await bench.idle()

    assert (bench.marker().status, bench.fake.calls) == ("expired", {})


async def test_an_event_cannot_prolong_the_deadline_of_its_route() -> None:
    later = event(extensions={"expirytime": format_time(now_at() + timedelta(days=1))})
    bench = Bench([{"error": "throttled", "retry_after_s": 4}], make_settings({"deadline_s": 10}))
    start_at = now_at()
    await bench.run(later)

    assert (now_at() - start_at).total_seconds() <= 10
    assert bench.marker().status == "expired"


async def test_a_record_stamped_in_the_future_gets_no_more_time_than_others() -> None:
    bench = await Bench([{"error": "throttled", "retry_after_s": 4}], make_settings({"deadline_s": 10})).start()
    future_ms = int(now_at().timestamp() * 1000) + 86_400_000
    await bench.send(event(), timestamp_ms=future_ms)
    await bench.idle(within_s=60)

    assert bench.marker().status == "expired"


async def test_a_retry_that_would_come_too_late_is_not_waited_for() -> None:
    bench = Bench([{"error": "throttled", "retry_after_s": 3600}], make_settings({"deadline_s": 300}))
    start_at = now_at()
    await bench.run(event())

    assert (bench.marker().status, bench.marker().attempts) == ("expired", 1)
    assert now_at() - start_at < timedelta(seconds=1)


async def test_a_call_gets_no_more_time_than_the_deadline_leaves() -> None:
    bench = Bench([{"hang": True}], make_settings({"deadline_s": 10, "attempt_timeout_s": 60}))
    start_at = now_at()
    await bench.run(event())

    assert (now_at() - start_at).total_seconds() == pytest.approx(10, abs=0.1)
    assert (bench.marker().status, bench.marker().attempts) == ("expired", 1)


async def test_a_deadline_that_passes_while_others_have_the_slots_is_kept() -> None:
    script = [{"match": "e0", "times": 1, "error": "throttled", "retry_after_s": 9}, {"match": "e1", "latency_s": 5}]
    settings = make_settings({"deadline_s": 10, "retry": {"base_s": 0.01, "max_s": 0.01}})
    bench = await Bench(script, settings, in_flight=1).start()
    await bench.send(event(0))
    await asyncio.sleep(8)
    await bench.send(event(1, extensions={"partitionkey": "k1"}))
    await bench.idle()

    expired = [record for record in bench.terminals if headers_of(record)["ce_type"] == EXPIRED_TYPE.encode()]
    assert (ids_of(expired), len(bench.terminals)) == (["e0"], 2)
    assert bench.fake.calls == {"e0": 1, "e1": 1}


async def test_an_event_expires_at_its_deadline_whoever_has_the_slots() -> None:
    script = [{"match": "e0", "times": 1, "error": "throttled", "retry_after_s": 5}, {"match": "e1", "latency_s": 50}]
    settings = make_settings({"deadline_s": 60, "retry": {"base_s": 0.01, "max_s": 0.01}})
    bench = await Bench(script, settings, in_flight=1).start()
    await bench.send(event(0, extensions={"expirytime": format_time(now_at() + timedelta(seconds=10))}))
    await asyncio.sleep(4)
    await bench.send(event(1, extensions={"partitionkey": "k1"}))
    await asyncio.sleep(8)

    assert [headers_of(record)["ce_type"] for record in bench.terminals] == [EXPIRED_TYPE.encode()]

    await bench.idle()

    assert bench.fake.calls == {"e0": 1, "e1": 1}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_configuration_fault_holds_everything_and_goes_on_when_it_is_mended(fault: str) -> None:
    """The operator mends it after a minute: nothing was dead-lettered, though there were more calls than attempts."""
    settings = make_settings({"deadline_s": 3600})
    times = FAULTS[fault] + 5
    bench = await Bench([{"times": times, "error": fault}], settings).start()
    await bench.send(*keyed(1))
    await asyncio.sleep(10)

    assert (bench.producer.records, [item.reason for item in bench.engine.held]) == ([], [fault])
    assert REGISTRY.get_sample_value("penstock_route_paused", {"route": "r", "reason": fault}) == 1

    await bench.idle()

    assert (bench.result().attempts, bench.letters) == (times + 1, [])
    assert REGISTRY.get_sample_value("penstock_route_paused", {"route": "r", "reason": fault}) is None


async def test_while_a_model_is_closed_only_probes_call_it() -> None:
    bench = await Bench([{"error": "access_denied"}], make_settings({"deadline_s": 3600})).start()
    await bench.send(*keyed(16))
    await settled()
    first = sum(bench.fake.calls.values())
    await asyncio.sleep(62.5)

    assert (first, sum(bench.fake.calls.values()) - first) == (16, 7)
    assert bench.producer.records == []

    await bench.engine.drain(1)
    await bench.engine.close()


async def test_who_waits_behind_a_closed_gate_holds_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be many, for long, and a prompt may be larger than its event."""

    class Seen(Message, frozen=True, weakref=True):
        pass

    def render(_template: PromptTemplate, event: Event) -> tuple[Message, ...]:
        message = Seen("user", event.id)
        rendered.add(message)
        return (message,)

    rendered: WeakSet[Seen] = WeakSet()
    monkeypatch.setattr(PromptTemplate, "render", render)
    settings = make_settings({"deadline_s": 3600})
    bench = await Bench([{"times": 16, "error": "access_denied"}], settings).start()
    await bench.send(*keyed(100))
    await settled()

    assert len(bench.engine.held) == 100
    assert len(rendered) <= 16, "only those that were called before it closed"

    await bench.idle()

    assert len(bench.terminals) == 100


async def test_an_outage_closes_the_gate_after_eight_failures_and_dead_letters_nothing_behind_it() -> None:
    settings = make_settings({"deadline_s": 3600, "retry": {"max_attempts": 2}})
    bench = await Bench([{"times": 40, "error": "provider_unavailable"}], settings).start()
    await bench.send(*keyed(100))
    await asyncio.sleep(20)

    assert sum(bench.fake.calls.values()) < 16 + OUTAGE_FAILURES + 10
    assert bench.letters == []

    await bench.idle()

    assert (len(bench.terminals), bench.letters, bench.committed) == (100, [], 100)


async def test_an_event_behind_a_closed_gate_expires_at_its_deadline() -> None:
    bench = Bench([{"error": "access_denied"}], make_settings({"deadline_s": 45}))
    start_at = now_at()
    await bench.run(event())

    assert (now_at() - start_at).total_seconds() == pytest.approx(45, abs=0.1)
    assert (bench.marker().status, bench.letters) == ("expired", [])


async def test_throttling_does_not_close_the_gate() -> None:
    settings = make_settings({"deadline_s": 3600, "retry": {"max_attempts": 20, "base_s": 0.01, "max_s": 0.02}})
    bench = await Bench([{"times": 15, "error": "throttled"}], settings).run(event())

    assert bench.result().attempts == 16


async def test_a_refusal_of_one_event_opens_a_closed_gate() -> None:
    script: list[dict[str, object]] = [
        {"times": 1, "error": "access_denied"},
        {"match": "e0", "error": "invalid_request"},
    ]
    bench = await Bench(script, make_settings({"deadline_s": 3600})).run(event(0), event(1))

    assert (ids_of(bench.terminals), len(bench.letters)) == (["e0", "e1"], 1)


async def test_models_have_gates_of_their_own() -> None:
    settings = make_settings({"name": "other", "match": {"source": "other"}, "model": "m2"}, {})
    bench = await Bench([{"match": "e0", "error": "access_denied"}], settings, in_flight=1).start()
    await bench.send(event(0, source="other", extensions={}))
    await asyncio.sleep(0.5)
    await bench.send(event(1))
    await asyncio.sleep(10)

    assert ids_of(bench.terminals) == ["e1"]

    await bench.engine.drain(1)
    await bench.engine.close()


async def test_a_result_that_is_not_confirmed_ends_the_worker_with_nothing_committed() -> None:
    bench = await Bench().start()
    bench.producer.fail_next(LogUnavailable("no ack"))
    await bench.send(event())
    await bench.idle()

    assert ([str(error) for error in bench.crashes], bench.committed) == (["no ack"], 0)


async def test_a_dead_letter_that_is_not_confirmed_leaves_no_marker() -> None:
    bench = await Bench([{"error": "invalid_request"}]).start()
    bench.producer.fail_next(LogUnavailable("no ack"))
    await bench.send(event())
    await bench.idle()

    assert (bench.producer.records, bench.committed, len(bench.crashes)) == ([], 0, 1)


async def test_a_paid_answer_waits_for_room_in_the_producer() -> None:
    bench = await Bench().start()
    bench.producer.fail_next(Busy("full", retry_after_s=2), Busy("full", retry_after_s=2))
    await bench.send(event())
    await bench.idle()

    assert (bench.result().attempts, sum(bench.fake.calls.values())) == (1, 1)


async def test_nothing_is_committed_before_the_broker_has_confirmed() -> None:
    bench = await Bench().start()
    bench.producer.hold_acks()
    await bench.send(event())
    await asyncio.sleep(5)

    assert (bench.committed, [item.state for item in bench.engine.held]) == (0, [State.SETTLING])

    bench.producer.release_acks()
    await bench.idle()

    assert bench.committed == 1


async def test_an_unconfirmed_record_holds_its_key_and_not_a_slot() -> None:
    bench = await Bench(in_flight=1).start()
    bench.producer.hold_acks()
    await bench.send(event(0), event(1), event(2, extensions={"partitionkey": "other"}))
    await asyncio.sleep(5)

    assert list(bench.fake.calls) == ["e0", "e2"]

    bench.producer.release_acks()
    await bench.idle()


async def test_an_unconfirmed_dead_letter_holds_no_slot_either() -> None:
    bench = await Bench(in_flight=1).start()
    bench.producer.hold_acks()
    await bench.put(None, None, [])
    await bench.send(event(1))
    await asyncio.sleep(5)

    assert list(bench.fake.calls) == ["e1"]

    bench.producer.release_acks()
    await bench.idle()


async def test_failures_kept_for_the_dead_letter_are_the_first_and_the_newest() -> None:
    settings = make_settings({"deadline_s": 3600, "retry": {"max_attempts": 20, "base_s": 0.01, "max_s": 0.02}})
    bench = await Bench([{"error": "throttled"}], settings).run(event())
    attempts = [note.attempt for note in dead_letter(bench.letters[0].headers).failures]

    assert attempts == [1, *range(12, 21)]


async def replayed(bench: Bench, one: Event) -> None:
    """Deliver an event of yesterday that an operator wants done again, and wait for its end."""
    await bench.producer.start()
    bench.engine.prepare(bench.tenure)
    bench.engine.begin(bench.tenure, {TP(EVENTS, PARTITION): Ledger(0, replay_until=1)})
    await bench.send(one, timestamp_ms=int(now_at().timestamp() * 1000) - 86_400_000)
    await bench.idle()


async def test_a_replayed_event_is_tried_again_however_old_it_is() -> None:
    bench = Bench([{"times": 1, "error": "throttled"}], make_settings({"retry": {"max_age_s": 600}}))
    await replayed(bench, event())

    assert (bench.result().attempts, bench.letters) == (2, [])


async def test_a_replayed_event_that_was_parked_is_tried_again_however_old_it_is() -> None:
    route = {"order": "none", "deadline_s": 7200, "retry": {"max_age_s": 3600}}
    first = Bench([{"error": "throttled", "retry_after_s": 900}], make_settings(route))
    await replayed(first, event())
    bench = await Bench([{"times": 1, "error": "throttled"}], make_settings(route)).start()
    await bench.take_up(*first.parked)
    await bench.idle()

    assert (bench.result().attempts, bench.letters) == (3, [])


async def test_a_parked_event_keeps_its_age_when_its_route_gets_a_shorter_deadline() -> None:
    """It keeps the deadline that it was parked with, which says nothing then of when that began."""
    route = {"order": "none", "deadline_s": 7200, "retry": {"max_age_s": 3600}}
    first = await Bench([{"error": "throttled", "retry_after_s": 3000}], make_settings(route)).run(event())
    shorter = make_settings({**route, "deadline_s": 600})
    bench = await Bench([{"error": "throttled", "retry_after_s": 900}], shorter).start()
    await bench.take_up(*first.parked)
    await bench.idle()

    assert (len(bench.letters), bench.parked) == (1, [])


async def test_a_replayed_event_that_was_parked_ends_by_its_age_since_the_replay() -> None:
    route = {"order": "none", "deadline_s": 7200, "retry": {"max_age_s": 3600}}
    first = Bench([{"error": "throttled", "retry_after_s": 3000}], make_settings(route))
    await replayed(first, event())
    shorter = make_settings({**route, "deadline_s": 600})
    bench = await Bench([{"error": "throttled", "retry_after_s": 900}], shorter).start()
    await bench.take_up(*first.parked)
    await bench.idle()

    assert (len(bench.letters), bench.parked, bench.fake.calls) == (1, [], {"e0": 1})


@pytest.mark.parametrize("reason", FAULTS)
async def test_the_line_of_a_pause_names_its_cause_and_the_route_goes_on_by_itself(reason: str) -> None:
    with capture_logs() as lines:
        bench = await Bench([{"times": FAULTS[reason] + 2, "error": reason}]).run(event())

    told = [(line["event"], line.get("reason"), line.get("error")) for line in lines if line["event"] in PAUSES]
    cause = f"scripted {reason} for event e0"
    assert told == [("model.paused", reason, cause), ("model.resumed", None, None)]
    assert bench.letters == []
    assert bench.result().event_id == "e0"


async def test_one_machine_of_several_with_a_bad_certificate_pauses_nothing_and_buries_nothing() -> None:
    """Whose turn it is with that machine is tried again at once; successes of others keep the model open."""
    script = [{"times": 2, "match": name, "error": "certificate_refused"} for name in ("e1", "e4", "e7", "e9")]
    settings = make_settings({"retry": {"max_attempts": 1}})
    with capture_logs() as lines:
        bench = await Bench(script, settings, in_flight=2).run(*keyed(12))

    assert [line for line in lines if line["event"] in PAUSES] == []
    assert (len(bench.terminals), bench.letters) == (12, [])
    assert [bench.fake.calls[f"e{n}"] for n in range(12)] == [1, 3, 1, 1, 3, 1, 1, 3, 1, 3, 1, 1]
