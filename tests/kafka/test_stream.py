"""Answers watched while they are made, on real Kafka: worker and gateways come and go, and no watcher sees it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.kafka.stream_lab import StreamLab, as_app, go_on, post, session
from tests.kafka.worker_lab import STATIC, Outcomes
from tests.kafkalab.fixtures import KafkaLab
from tests.stream_client import Frame, Shown
from tests.support import eventually, eventually_async

pytestmark = pytest.mark.timeout(150)
TEXT = " ".join(f"Word{n} is here." for n in range(60))


@pytest.fixture
def lab(kafka: KafkaLab, tmp_path: Path) -> Iterator[StreamLab]:
    made = StreamLab(kafka, tmp_path)
    with made.model("--stream-pause", "0.02"):
        yield made


async def test_an_answer_grows_on_two_gateways_and_survives_the_end_of_one(lab: StreamLab) -> None:
    with lab.gateway("one") as one, lab.gateway("two") as two, lab.lab.running():
        async with session() as client, asyncio.timeout(60):
            lab.stub.set_knobs(answer=TEXT, stream_pause_s=0.02)
            shown, late = Shown(), Shown()
            async for frame in post(client, one, "e1", "go"):
                shown.take(frame)
                if shown.deltas == 4:
                    break
            late.accepted = shown.accepted
            # The first half was seen at the first gateway, the rest comes from the second; another one sees it all.
            async with asyncio.TaskGroup() as group:
                for watcher in (shown, late):
                    group.create_task(_watch(client, two, watcher))

            assert (shown.gaps, shown.repeats, shown.restarts, late.gaps, late.repeats) == (0, 0, 0, 0, 0)
            assert shown.text == late.text == TEXT
            assert shown.last is not None
            assert (shown.last["type"], shown.last["result"]["output"]) == ("result", TEXT)
            # Who has everything is told so, by any gateway.
            async with client.get(one + shown.accepted["stream_url"], headers={"Last-Event-ID": "end"}) as again:
                assert again.status == 204
            # And who comes long after reads it as it was.
            after = Shown(accepted=shown.accepted)
            await _watch(client, one, after)
            assert (after.text, after.gaps) == (TEXT, 0)


async def test_a_worker_killed_while_it_streams_makes_the_next_one_begin_anew(lab: StreamLab) -> None:
    with lab.gateway() as url, Outcomes(lab.lab.kafka, lab.lab.topics.results) as outcomes:
        async with session() as client, asyncio.timeout(90):
            lab.stub.set_knobs(answer=TEXT, stream_pause_s=0.05)
            shown = Shown()
            with lab.lab.running(**STATIC) as first:
                frames = post(client, url, "e1", "go")
                async for frame in frames:
                    shown.take(frame)
                    if shown.deltas == 3:
                        break
                first.signal(signal.SIGKILL)
            half = shown.text
            lab.stub.set_knobs(answer=TEXT, stream_pause_s=0.0)
            with lab.lab.running(**STATIC):
                async for frame in frames:
                    shown.take(frame)

        assert half
        assert (shown.restarts, shown.gaps, shown.repeats, shown.text) == (1, 0, 0, TEXT)
        assert outcomes.wait_for(1).by_id == {"e1": 1}
        assert lab.stub.calls == 2


async def test_a_gateway_that_ends_lets_its_watchers_go_and_they_go_on_after_its_restart(lab: StreamLab) -> None:
    with lab.lab.running():
        async with session() as client, asyncio.timeout(60):
            lab.stub.set_knobs(answer=TEXT, stream_pause_s=0.05)
            shown, stack = Shown(), contextlib.ExitStack()
            url = await asyncio.to_thread(stack.enter_context, lab.gateway())
            reading = asyncio.ensure_future(_read(post(client, url, "e1", "go"), shown))
            await eventually_async(lambda: shown.deltas > 1)
            await asyncio.to_thread(stack.close)
            await reading
            assert shown.last is None
            with lab.gateway() as url:
                await _watch(client, url, shown)

    assert (shown.text, shown.gaps, shown.repeats) == (TEXT, 0, 0)


async def test_an_event_without_a_result_ends_its_stream_with_the_reason(kafka: KafkaLab, tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["n"]}
    made = StreamLab(kafka, tmp_path, route={"output_schema": schema})
    with made.model(), made.gateway() as url, made.lab.running():
        made.stub.set_knobs(answer="this is no JSON")
        async with session() as client, asyncio.timeout(60):
            shown = Shown()
            async for frame in post(client, url, "e1", "go"):
                shown.take(frame)

            # A repair was tried: the second attempt makes the first void, where that was seen at all.
            assert shown.restarts <= 1
            assert (shown.text, shown.ending) == ("this is no JSON", "dead_letter")
            assert shown.last is not None
            assert (shown.last["type"], shown.last["reason"]) == ("error", "output_invalid")
            made.stub.set_knobs(answer='{"n": 1}')
            async with client.post(f"{url}/v1/events", headers=as_app("e2", **{"ce-delivery": "stream"})) as accepted:
                later = Shown(accepted=await accepted.json())
            await _watch(client, url, later)
            assert (later.text, later.last and later.last["result"]["output"]) == ('{"n": 1}', {"n": 1})


async def test_a_cancel_stops_the_call_and_the_event_ends_once(lab: StreamLab) -> None:
    with lab.gateway() as url, lab.lab.running(), Outcomes(lab.lab.kafka, lab.lab.topics.results) as outcomes:
        async with session() as client, asyncio.timeout(60):
            lab.stub.set_knobs(answer=TEXT, stream_pause_s=0.3)
            shown = Shown()
            async for frame in post(client, url, "e1", "go"):
                shown.take(frame)
                if shown.deltas == 2 and shown.last is None:
                    stream_url = url + shown.accepted["stream_url"]
                    async with client.delete(stream_url, headers=as_app("e1")) as answer:
                        assert answer.status == 202

        assert shown.last is not None
        assert (shown.last["status"], shown.last["reason"], shown.ending) == ("dead_letter", "cancelled", "dead_letter")
        assert TEXT.startswith(shown.text)
        assert len(shown.text) < len(TEXT)
        assert outcomes.wait_for(1).by_id == {"e1": 1}
        eventually(lambda: lab.stub.stats()["in_flight"] == 0)
        assert lab.stub.calls == 1


async def _watch(client: aiohttp.ClientSession, url: str, shown: Shown) -> None:
    await _read(go_on(client, url, shown), shown)


async def _read(frames: AsyncIterator[Frame], shown: Shown) -> None:
    async for frame in frames:
        shown.take(frame)
