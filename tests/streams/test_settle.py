"""Writing the one outcome under a tenure."""

import asyncio
import json
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts import logs
from contracts.codec import Headers, Position, Record, dead_letter, decode_json, parse_time, redrive_headers, redrive_of
from contracts.errors import InvalidRequest, LogUnavailable
from contracts.payloads import FailureNote, InferenceAnswer, InferenceResult, Provenance, Redrive
from contracts.repetition import ANSWERED, REPLAY, State, dedup_header, identify
from contracts.settings import LogSettings, ProducerSettings, RouteSettings
from contracts.topics import Topics
from producers.base import Ack, Forbidden, Place
from producers.memory import MemoryProducer
from streams import staged
from streams.engine.item import ResultRef
from streams.engine.tenure import Tenure, TenureLostError
from streams.job import make_job
from streams.outcome import Bury, Expire
from streams.settle import Settler
from streams.steps.route import Router
from tests.support import FakeClock, eventually_async

CE: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"s"), ("ce_type", b"t")]
ROUTE = RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m"})
AT = Position("t.events.standard.v1", 1, 7, int((datetime.now(UTC) - timedelta(seconds=2)).timestamp() * 1000))
TOPICS = Topics("t")
PROVENANCE = Provenance(provider="p", model="m", route="r", prompt_digest="d")


class Bench:
    """A settler over memory."""

    def __init__(self) -> None:
        self.producer = MemoryProducer()
        self.settler = Settler(self.producer, TOPICS, "app")
        self.job = make_job(AT, b"k", b"{}", CE, Router((ROUTE,)))
        self.tenure = Tenure(1)

    async def result(self, text: str = "hello") -> object:
        await self.producer.start()
        answer = InferenceAnswer(text=text, model="m")
        return await self.settler.result(self.job, AT, self.tenure, answer, text, PROVENANCE)

    async def bury(self) -> object:
        await self.producer.start()
        end = Bury("invalid_request", "poison")
        return await self.settler.bury(self.job, AT, self.tenure, end, InvalidRequest("400"))

    async def expire(self) -> object:
        await self.producer.start()
        return await self.settler.expire(self.job, AT, self.tenure, Expire())

    def topics(self) -> list[str]:
        return [record.topic for record in self.producer.records]


async def test_each_ending_is_one_terminal_record_where_it_says() -> None:
    for ending in (Bench.result, Bench.bury, Bench.expire):
        bench = Bench()
        ref = await ending(bench)

        assert ref == (TOPICS.results, 0)
        assert bench.topics().count(TOPICS.results) == 1
        assert bench.producer.stored[-1].position.partition == AT.partition


@pytest.mark.parametrize("ending", [Bench.result, Bench.bury, Bench.expire])
async def test_nothing_is_written_once_the_partition_is_given_up(ending: object) -> None:
    bench = Bench()
    bench.tenure.end()

    with pytest.raises(TenureLostError):
        await ending(bench)  # type: ignore[operator]
    assert bench.topics() == []


async def test_a_partition_given_up_between_dead_letter_and_marker_gets_no_marker() -> None:
    bench = Bench()

    def valid_once() -> bool:
        is_first = not bench.topics()
        if not is_first:
            bench.tenure.end()
        return is_first

    bench.tenure = Tenure(1, valid_once)

    with pytest.raises(TenureLostError):
        await bench.bury()
    assert bench.topics() == [TOPICS.dead_letters]


async def test_what_comes_together_is_written_in_order_and_one_that_fails_fails_alone() -> None:
    bench = Bench()
    bench.producer = MemoryProducer(ProducerSettings(max_record_bytes=4096))
    bench.settler = Settler(bench.producer, TOPICS, "app")
    await bench.producer.start()

    def result(output: object) -> Coroutine[Any, Any, object]:
        answer = InferenceAnswer(text="", model="m")
        return bench.settler.result(bench.job, AT, bench.tenure, answer, output, PROVENANCE)

    ends = await asyncio.gather(*map(result, ("one", object(), "x" * 5000, "two")), return_exceptions=True)

    assert [type(end) for end in ends] == [ResultRef, TypeError, ResultRef, ResultRef]
    outputs = [decode_json(record.value or b"", InferenceResult).output for record in bench.producer.records[:2]]
    assert outputs == ["one", "two"]
    assert bench.topics()[2:] == [TOPICS.dead_letters, TOPICS.results]


async def test_a_result_that_was_cut_off_before_it_was_written_is_not_written() -> None:
    bench = Bench()
    await bench.producer.start()
    writing = asyncio.ensure_future(bench.result())
    other = asyncio.ensure_future(bench.result("other"))
    await asyncio.sleep(0)
    assert len(bench.settler._results) == 2
    writing.cancel()
    await other

    assert writing.cancelled()
    assert [decode_json(one.value or b"", InferenceResult).output for one in bench.producer.records] == ["other"]


async def test_a_result_whose_producer_breaks_after_it_has_answered_does_not_hold_up_the_others() -> None:
    class Breaking(MemoryProducer):
        def post(self, record: Record, ack: Ack) -> None:
            if not self.records and not ack.done() and not broken:
                broken.append(record)
                ack.set_exception(LogUnavailable("refused"))
                message = "and the client cannot be made anew"
                raise RuntimeError(message)
            super().post(record, ack)

    broken: list[Record] = []
    bench = Bench()
    bench.producer = Breaking()
    bench.settler = Settler(bench.producer, TOPICS, "app")
    async with asyncio.timeout(5):
        ends = await asyncio.gather(bench.result(), bench.result(), return_exceptions=True)

    assert [type(end) for end in ends] == [LogUnavailable, ResultRef]


async def test_no_result_took_less_than_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its instant is cut to the millisecond, its duration must not be."""
    bench = Bench()
    bench.job.accepted_s = 1_700_000_000.0017
    monkeypatch.setattr("streams.settle.time.time_ns", lambda: 1_700_000_000_001_900_000)
    await bench.result()
    result = decode_json(bench.producer.records[0].value or b"", InferenceResult)

    assert (result.duration_s, result.completed_at) == (0.0, "2023-11-14T22:13:20.001Z")


async def test_a_lease_that_ends_before_the_result_is_written_is_waited_for() -> None:
    bench = Bench()
    answers = iter([True, False, False])
    bench.tenure = Tenure(1, lambda: next(answers, True))

    assert await bench.result() == (TOPICS.results, 0)
    assert (bench.topics(), list(answers)) == ([TOPICS.results], [])


@pytest.mark.parametrize("ending", [Bench.result, Bench.bury, Bench.expire])
async def test_what_is_not_confirmed_is_told(ending: object) -> None:
    bench = Bench()
    bench.producer.fail_next(LogUnavailable("no ack"))

    with pytest.raises(LogUnavailable):
        await ending(bench)  # type: ignore[operator]
    assert bench.topics() == []


async def test_a_duration_counts_from_acceptance() -> None:
    bench = Bench()
    await bench.result()
    result = decode_json(bench.producer.records[0].value or b"", InferenceResult)
    completed_at = parse_time(result.completed_at)

    assert completed_at is not None
    assert result.duration_s == pytest.approx((completed_at - bench.job.accepted_at).total_seconds(), abs=0.002)


async def test_a_dead_letter_says_where_the_original_lies() -> None:
    bench = Bench()
    await bench.bury()
    letter = dead_letter(bench.producer.records[0].headers)

    assert (letter.topic, letter.partition, letter.offset, letter.message) == (AT.topic, 1, 7, "400")


async def test_a_dead_letter_is_the_original_byte_for_byte_also_where_it_is_null() -> None:
    bench = Bench()
    headers: list[tuple[str, bytes | None]] = [*CE, ("x", b"\xff"), ("x", None), ("x", b"")]
    bench.job = make_job(AT, None, None, headers, Router((ROUTE,)))
    await bench.bury()
    record = bench.producer.records[0]

    assert (record.key, record.value, record.headers[:-1]) == (None, None, headers)


async def test_a_dead_letter_knows_trace_timestamp_and_earlier_redrives() -> None:
    bench = Bench()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    redrive = Redrive(partition=0, offset=3, timestamp_ms=4, count=2, at="2026-11-24T08:00:00.000Z")
    headers = redrive_headers([*CE, ("ce_traceparent", trace)], redrive)
    bench.job = make_job(AT, b"k", b"{}", headers, Router((ROUTE,)))
    await bench.bury()
    letter = dead_letter(bench.producer.records[0].headers)

    assert (letter.traceparent, letter.timestamp_ms, letter.redrives) == (trace.decode(), AT.timestamp_ms, 2)
    assert letter.app_id == "app"


@pytest.mark.parametrize("ending", [Bench.result, Bench.bury, Bench.expire])
async def test_the_outcome_of_a_redriven_event_says_so(ending: object) -> None:
    bench = Bench()
    redrive = Redrive(partition=0, offset=3, timestamp_ms=4, count=1, at="2026-11-24T08:00:00.000Z")
    bench.job = make_job(AT, b"k", b"{}", redrive_headers(CE, redrive), Router((ROUTE,)))
    await ending(bench)  # type: ignore[operator]

    assert redrive_of(bench.producer.records[-1].headers) == redrive


@pytest.mark.parametrize("ending", [Bench.result, Bench.bury, Bench.expire])
async def test_the_outcome_of_an_event_that_is_done_again_says_so(ending: object) -> None:
    bench = Bench()
    bench.job.replayed_s = 1_767_225_600.5
    await ending(bench)  # type: ignore[operator]

    assert dict(bench.producer.records[-1].headers)[REPLAY] == b"1767225600500"


@pytest.mark.parametrize("ending", [Bench.result, Bench.bury, Bench.expire])
async def test_the_outcome_of_an_event_says_which_of_those_under_its_id_it_answers(ending: object) -> None:
    """Also of one that was parked meanwhile: more than once, if a worker was killed then."""
    identity = identify("", "s", "e1", b"{}", "id", 60)
    for state, origin, where in (
        ("new", None, ""),
        ("redelivery", None, f" {AT.topic}/1/7"),
        ("redelivery", AT._replace(offset=3), f" {AT.topic}/1/3"),
    ):
        bench = Bench()
        bench.job = make_job(AT, b"k", b"{}", [*CE, dedup_header(identity, cast("State", state))], Router((ROUTE,)))
        bench.job.origin = origin
        await ending(bench)  # type: ignore[operator]

        assert dict(bench.producer.records[-1].headers)[ANSWERED] == (identity.digest.hex() + where).encode()


async def test_where_a_dead_letter_would_be_too_large_the_first_and_the_last_error_stay() -> None:
    bench = Bench()
    bench.producer = MemoryProducer(ProducerSettings(max_buffer_bytes=65_536, max_record_bytes=2_500))
    bench.settler = Settler(bench.producer, TOPICS, "app")
    bench.job.failures += [
        FailureNote(attempt=n, reason="throttled", message=f"{n}" * 500, at="2026-11-24T08:00:00.000Z")
        for n in range(1, 6)
    ]
    await bench.bury()

    assert [note.attempt for note in dead_letter(bench.producer.records[0].headers).failures] == [1, 5]


async def test_an_output_that_is_nested_too_deeply_to_be_written_is_buried() -> None:
    bench = Bench()
    await bench.producer.start()
    output: list[Any] = []
    for _ in range(100_000):
        output = [output]
    answer = InferenceAnswer(text="", model="m")
    await bench.settler.result(bench.job, AT, bench.tenure, answer, output, PROVENANCE)

    assert bench.topics() == [TOPICS.dead_letters, TOPICS.results]
    assert dead_letter(bench.producer.records[0].headers).reason == "too_large"


async def test_the_line_of_a_result_has_the_fields_that_structlog_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    written, captured = Bench(), Bench()
    await written.result()
    assert not capsys.readouterr().err, "it waits for company"
    written.settler.lines.flush()
    line = json.loads(capsys.readouterr().err)
    with capture_logs() as lines:
        await captured.result()

    [theirs] = lines
    names = {*theirs} - {"log_level", "age_s"}
    assert {name: line[name] for name in names} == {name: theirs[name] for name in names}
    assert {*line} == names | {"level", "timestamp", "age_s"}
    assert (line["event"], line["component"], line["outcome"]) == ("event.finished", "worker", "result")


class Silence:
    """A settler whose log confirms nothing any more: one result of partition 1 waits for its ack."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bench = Bench()
        self.bench.producer = MemoryProducer(clock=self.clock)
        self.bench.settler = Settler(self.bench.producer, TOPICS, "app")

    async def begin(self) -> "asyncio.Task[object]":
        await self.bench.producer.start()
        self.bench.producer.hold_acks()
        first = asyncio.ensure_future(self.bench.result())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.clock.advance(1.0)
        self.bench.producer.tick()
        return first

    def result_of(self, partition: int) -> Coroutine[Any, Any, object]:
        answer = InferenceAnswer(text="", model="m")
        at = AT._replace(partition=partition)
        return self.bench.settler.result(self.bench.job, at, self.bench.tenure, answer, f"in {partition}", PROVENANCE)

    @property
    def handed_over(self) -> int:
        return len(self.bench.producer._window)


@pytest.mark.parametrize("ending", [Bench.result, Bench.bury, Bench.expire])
async def test_a_silent_log_gets_nothing_more_until_it_confirms_again(ending: object) -> None:
    silence = Silence()
    first = await silence.begin()
    # Of another topic or partition; these are tried.
    tried = 1 + (ending is Bench.bury)
    second = asyncio.ensure_future(ending(silence.bench))  # type: ignore[operator]
    other = asyncio.ensure_future(silence.result_of(2))
    await asyncio.sleep(3 * staged._LOOK_AGAIN_S)
    assert silence.handed_over == 1 + tried
    silence.bench.producer.release_acks()

    async with asyncio.timeout(5):
        assert all(isinstance(end, ResultRef) for end in await asyncio.gather(first, second, other))


@pytest.mark.parametrize("ending", [Bench.result, Bench.expire])
async def test_what_a_silent_log_did_not_get_is_not_written_once_the_partition_is_given_up(ending: object) -> None:
    """Else it would be sent when the brokers are there again, whoever has the partition by then."""
    silence = Silence()
    first = await silence.begin()
    second = asyncio.ensure_future(ending(silence.bench))  # type: ignore[operator]
    await asyncio.sleep(2 * staged._LOOK_AGAIN_S)
    silence.bench.tenure.end()
    silence.bench.producer.release_acks()

    async with asyncio.timeout(5):
        with pytest.raises(TenureLostError):
            await second
        await first
    assert len(silence.bench.producer.records) == 1


@pytest.mark.parametrize("ending", [Bench.result, Bench.expire])
async def test_many_that_wait_for_a_silent_log_look_at_it_together(ending: object) -> None:
    """Each for itself, five hundred would keep a processor busy for as long as the brokers are away."""
    silence = Silence()
    looks: list[float] = []
    silent = silence.bench.producer.silent

    def look(after_s: float) -> frozenset[Place]:
        looks.append(after_s)
        return silent(after_s)

    silence.bench.producer.silent = look  # type: ignore[method-assign]
    first = await silence.begin()
    others = [asyncio.ensure_future(ending(silence.bench)) for _ in range(500)]  # type: ignore[operator]
    await eventually_async(lambda: len(looks) >= 2)
    looks.clear()
    await eventually_async(lambda: len(looks) >= 3)
    assert len(looks) < 50
    silence.bench.producer.release_acks()

    async with asyncio.timeout(5):
        assert all(isinstance(end, ResultRef) for end in await asyncio.gather(first, *others))


async def test_results_that_wait_for_a_silent_log_keep_their_order_and_hold_up_no_other_partition() -> None:
    silence = Silence()
    first = await silence.begin()
    waiting = [asyncio.ensure_future(silence.bench.result(f"{number}")) for number in range(50)]
    await eventually_async(lambda: bool(silence.bench.settler._unheard))
    other = asyncio.ensure_future(silence.result_of(2))
    for _ in range(3):
        # No timer: it is written in this turn of the loop or the next.
        await asyncio.sleep(0)
    assert silence.handed_over == 2
    silence.bench.producer.release_acks()

    async with asyncio.timeout(5):
        await asyncio.gather(first, other, *waiting)
    records = [decode_json(one.value or b"", InferenceResult).output for one in silence.bench.producer.records]
    assert records == ["hello", "in 2", *map(str, range(50))]


async def test_a_result_that_is_cut_off_while_the_log_is_silent_is_not_written() -> None:
    silence = Silence()
    first = await silence.begin()
    cut, kept = (asyncio.ensure_future(silence.bench.result(text)) for text in ("cut", "kept"))
    await eventually_async(lambda: bool(silence.bench.settler._unheard))
    cut.cancel()
    silence.bench.producer.release_acks()

    async with asyncio.timeout(5):
        await asyncio.gather(first, kept)
    assert cut.cancelled()
    assert len(silence.bench.producer.records) == 2


@pytest.mark.parametrize("ending", [Bench.result, Bench.expire])
async def test_an_outcome_waits_for_the_right_to_write_and_an_operator_is_told(
    ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ended would come back, pay for its calls again, and end again."""
    bench = Bench()
    refusals = [Forbidden("topic t may not be written to", retry_after_s=0.01) for _ in range(3)]
    post = bench.producer.post

    def refused(record: Record, ack: Ack) -> None:
        if refusals:
            ack.set_exception(refusals.pop())
        else:
            post(record, ack)

    monkeypatch.setattr(bench.producer, "post", refused)
    with capture_logs() as lines:
        ref = await asyncio.wait_for(ending(bench), 5)

    assert (ref, refusals, bench.topics().count(TOPICS.results)) == ((TOPICS.results, 0), [], 1)
    assert [line["error"] for line in lines if line["event"] == "topic.forbidden"] == ["topic t may not be written to"]
