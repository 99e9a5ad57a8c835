"""Writing the one outcome under a tenure."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.codec import Headers, Position, dead_letter, decode_json, parse_time
from contracts.errors import InvalidRequest, LogUnavailable
from contracts.payloads import InferenceAnswer, InferenceResult, Provenance
from contracts.settings import RouteSettings
from contracts.topics import Topics
from producers.memory import MemoryProducer
from streams.engine.tenure import Tenure, TenureLostError
from streams.job import make_job
from streams.outcome import Bury, Expire
from streams.settle import Settler
from streams.steps.route import Router

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
    result = decode_json(bench.producer.records[0].value, InferenceResult)
    completed_at = parse_time(result.completed_at)

    assert completed_at is not None
    assert result.duration_s == pytest.approx((completed_at - bench.job.accepted_at).total_seconds(), abs=0.002)


async def test_a_dead_letter_says_where_the_original_lies() -> None:
    bench = Bench()
    await bench.bury()
    letter = dead_letter(bench.producer.records[0].headers)

    assert (letter.topic, letter.partition, letter.offset, letter.message) == (AT.topic, 1, 7, "400")
