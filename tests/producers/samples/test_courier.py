"""The courier: schedule, limits, what it makes of answers."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from contracts.settings import SourceSettings
from producers.samples.courier import NO_ANSWER, Answer, Courier, Plan
from producers.samples.signing import sign
from producers.samples.table import SAMPLES
from tests.streams.virtual_clock import VirtualClockLoop
from tests.support import free_port

SOURCE = SourceSettings.model_validate(
    {"scheme": "github", "secrets": [{"id": "a", "value": "env:S"}], "type": "com.github.{header:x-github-event}"}
)
SECRET = b"a secret of the sender"
Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def gateway(handler: Handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/webhooks/github", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/github"
    finally:
        await runner.cleanup()


async def checking(request: web.Request) -> web.Response:
    """Answer as a gateway does."""
    body = await request.read()
    signature = sign(SOURCE, SECRET, body, event_id="", timestamp_s=0)["x-hub-signature-256"]
    if request.headers["x-hub-signature-256"] != signature:
        return web.json_response({}, status=401)
    event_id = request.headers["x-github-delivery"]
    return web.json_response({"id": event_id, "status_url": f"/v1/results/{event_id}?ticket=t"}, status=202)


async def deliver(url: str, **plan: Any) -> tuple[list[Answer], Courier]:
    answers: list[Answer] = []
    courier = Courier(url, SOURCE, ("a", SECRET), SAMPLES["github"], Plan(**plan), answers.append)
    await asyncio.wait_for(courier.run(), 20)
    return answers, courier


async def test_everything_is_sent_signed_and_the_last_ones_forged() -> None:
    async with gateway(checking) as url:
        answers, _ = await deliver(url, count=30, forged=4)

    assert Counter((answer.status, answer.is_forged) for answer in answers) == {(202, False): 26, (401, True): 4}
    assert all(answer.is_expected for answer in answers)


async def test_the_receipt_gives_id_and_absolute_status_url() -> None:
    async with gateway(checking) as url:
        answers, _ = await deliver(url, count=1, seed=7)

    event_id = SAMPLES["github"](random.Random(7)).id  # noqa: S311 - sample data
    base = url.removesuffix("/webhooks/github")
    assert (answers[0].event_id, answers[0].status_url) == (event_id, f"{base}/v1/results/{event_id}?ticket=t")


async def test_a_seed_decides_what_is_sent_also_with_many_at_a_time() -> None:
    async with gateway(checking) as url:
        first, _ = await deliver(url, count=40, seed=3, concurrency=16)
        second, _ = await deliver(url, count=40, seed=3, concurrency=5)

    assert {answer.event_id for answer in first} == {answer.event_id for answer in second}


async def test_a_wanted_redelivery_says_so_with_the_secret() -> None:
    said: list[str | None] = []

    async def noting(request: web.Request) -> web.Response:
        said.append(request.headers.get("penstock-redelivery"))
        return await checking(request)

    async with gateway(noting) as url:
        await deliver(url, count=1)
        await deliver(url, count=1, redelivery_secret=b"an-operators-secret")

    assert said == [None, "an-operators-secret"]


def test_the_rate_is_kept_and_a_slow_answer_does_not_hold_the_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[float] = []

    async def slow_first(*_args: Any, **_kwargs: Any) -> Answer:
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5 if len(starts) == 1 else 0.001)
        return Answer(202, 0.0)

    monkeypatch.setattr(Courier, "_post", slow_first)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        answers, _ = runner.run(deliver("http://127.0.0.1:1", count=21, rate_per_s=50.0))

    assert len(answers) == 21
    assert [start - starts[0] for start in starts] == pytest.approx([number / 50 for number in range(21)])


async def test_no_more_requests_are_open_than_allowed() -> None:
    open_now = most = 0

    async def counting(request: web.Request) -> web.Response:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.01)
        open_now -= 1
        return await checking(request)

    async with gateway(counting) as url:
        await deliver(url, count=30, concurrency=3)

    assert most == 3


async def test_without_a_listener_it_stops_at_once_and_says_why() -> None:
    answers, courier = await deliver(f"http://127.0.0.1:{free_port()}/webhooks/github", count=1000)

    assert answers == []
    assert courier.unreachable == "Connection refused"


async def test_a_connection_that_breaks_later_is_an_answer_that_is_missing() -> None:
    seen = 0

    async def breaking(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        if seen == 3 and request.transport is not None:
            request.transport.close()
        return await checking(request)

    async with gateway(breaking) as url:
        answers, courier = await deliver(url, count=5, concurrency=1)

    assert [answer.status for answer in answers] == [202, 202, NO_ANSWER, 202, 202]
    assert courier.unreachable == ""
    assert answers[2].error


async def test_an_answer_that_does_not_come_in_time_is_missing() -> None:
    async def hanging(request: web.Request) -> web.Response:
        if request.headers["x-github-delivery"] != first:
            await asyncio.sleep(5)
        return await checking(request)

    first = SAMPLES["github"](random.Random(0)).id  # noqa: S311 - sample data
    async with gateway(hanging) as url:
        answers, _ = await deliver(url, count=2, concurrency=1, timeout_s=0.2)

    assert [answer.status for answer in answers] == [202, NO_ANSWER]
    assert "within 0.2 s" in answers[1].error


async def test_stopping_starts_nothing_more_and_waits_for_what_is_open() -> None:
    async with gateway(checking) as url:
        answers: list[Answer] = []

        def stop_at_five(answer: Answer) -> None:
            answers.append(answer)
            if len(answers) == 5:
                courier.stop()

        courier = Courier(url, SOURCE, ("a", SECRET), SAMPLES["github"], Plan(1000, concurrency=1), stop_at_five)
        await asyncio.wait_for(courier.run(), 20)

    assert len(answers) == 5


async def test_an_answer_without_a_readable_receipt_still_counts() -> None:
    async def bare(_request: web.Request) -> web.Response:
        return web.Response(status=204)

    async with gateway(bare) as url:
        answers, _ = await deliver(url, count=1)

    assert (answers[0].status, answers[0].event_id, answers[0].is_expected) == (204, "", True)
