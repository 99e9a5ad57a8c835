"""Under which name a server takes the limit of an answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from contracts.errors import InvalidRequest, ModelNotFound, PenstockError
from contracts.payloads import InferenceAnswer, InferenceRequest
from contracts.settings.models import OpenAIProvider
from streams.providers.base import NotAsked
from streams.providers.openai import OpenAI
from streams.steps.invoke import invoke, invoke_streamed

REQUEST = InferenceRequest(event_id="e", model="m", messages=(), system="Say yes.", timeout_s=10.0)
OLDER, NEWER = "max_tokens", "max_completion_tokens"
# In the words of the server named beside them.
AZURE = (
    400,
    {
        "error": {
            "code": "unsupported_parameter",
            "param": OLDER,
            "type": "invalid_request_error",
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
        }
    },
)
GATEWAY = (
    400,
    {
        "error": {
            "message": "litellm.BadRequestError: Unsupported parameter: 'max_tokens' is not supported with this model.",
            "code": "400",
            "param": None,
        }
    },
)
FASTAPI = (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", NEWER],
                             "msg": "Extra inputs are not permitted", "input": 512}]})  # fmt: skip
WHOLE = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
PIECES = b'data: {"choices":[{"delta":{"content":"yes"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Picky:
    """A server that takes one name of the limit alone."""

    def __init__(self, takes: str, status: int, body: Any) -> None:
        self._takes = takes
        self._refusal = status, json.dumps(body)
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Answer, or refuse."""
        asked = json.loads(await request.read())
        (name,) = {OLDER, NEWER} & asked.keys()
        assert asked[name] == 512
        self.asked.append(name)
        if name != self._takes:
            return web.Response(status=self._refusal[0], text=self._refusal[1], content_type="application/json")
        if asked.get("stream"):
            return web.Response(body=PIECES, content_type="text/event-stream")
        return web.json_response(WHOLE)

    @contextlib.asynccontextmanager
    async def serving(self, **settings: Any) -> AsyncIterator[OpenAI]:
        """Listen, and yield a provider that asks here."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.02)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        provider = OpenAI(OpenAIProvider(kind="openai", base_url=base_url, **settings))
        await provider.start()
        try:
            yield provider
        finally:
            await provider.aclose()
            await runner.cleanup()


async def ask(provider: OpenAI, *, streams: bool) -> InferenceAnswer:
    return await (invoke_streamed(provider, REQUEST, lambda _: None) if streams else invoke(provider, REQUEST))


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
@pytest.mark.parametrize("refusal", [AZURE, GATEWAY], ids=["azure", "gateway"])
async def test_a_model_that_refuses_the_older_name_gets_the_newer_one_from_then_on(
    refusal: tuple[int, Any], transport: str, *, streams: bool
) -> None:
    server = Picky(NEWER, *refusal)
    async with server.serving(transport=transport) as provider:
        with capture_logs() as lines:
            for _ in range(3):
                assert (await ask(provider, streams=streams)).text == "yes"

    assert server.asked == [OLDER, NEWER, NEWER, NEWER]
    assert [line["refused"] for line in lines if line["event"] == "provider.limit_renamed"] == [OLDER]


async def test_a_model_that_refuses_the_newer_name_gets_the_older_one() -> None:
    server = Picky(OLDER, *FASTAPI)
    async with server.serving() as provider:
        provider._limit_name = NEWER
        assert (await ask(provider, streams=False)).text == "yes"
        assert (await ask(provider, streams=True)).text == "yes"

    assert server.asked == [NEWER, OLDER, OLDER]


async def test_each_model_has_its_own_name() -> None:
    server = Picky(NEWER, *AZURE)
    async with server.serving() as provider:
        await ask(provider, streams=False)
        await invoke(provider, msgspec.structs.replace(REQUEST, model="other"))

    assert server.asked == [OLDER, NEWER, OLDER, NEWER]


async def test_a_name_that_was_told_is_kept_and_its_refusal_pauses_the_route() -> None:
    server = Picky(NEWER, *AZURE)
    async with server.serving(max_tokens_field=OLDER) as provider:
        for streams in (False, True):
            with pytest.raises(ModelNotFound, match="Use 'max_completion_tokens' instead"):
                await ask(provider, streams=streams)

    assert server.asked == [OLDER, OLDER]


async def test_a_name_that_was_told_is_sent() -> None:
    server = Picky(NEWER, *AZURE)
    async with server.serving(max_tokens_field=NEWER) as provider:
        await ask(provider, streams=False)

    assert server.asked == [NEWER]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "max_tokens is too large: 512. This model supports at most 100"}}, InvalidRequest),
        (400, {"error": {"message": "unknown role", "param": "messages"}}, InvalidRequest),
        (422, {"detail": "unsupported language"}, InvalidRequest),
        (500, AZURE[1], PenstockError),
        (400, {"error": {"message": "max_tokens value 100000 is not supported by this model"}}, InvalidRequest),
        (400, {"error": {"message": "Unexpected value for max_tokens: 100000"}}, InvalidRequest),
        (400, {"error": {"message": "Unsupported parameter: max_tokens exceeds 4096", "param": OLDER}}, InvalidRequest),
        (400, {"error": {"message": "Unknown model foo; see max_tokens"}}, InvalidRequest),
        (400, {"error": {"message": "no", "code": "unsupported_value", "param": OLDER}}, ModelNotFound),
    ],
)
async def test_what_is_refused_for_something_else_is_not_asked_again(
    status: int, body: Any, kind: type[PenstockError]
) -> None:
    server = Picky("", status, body)
    async with server.serving() as provider:
        for streams in (False, True):
            with pytest.raises(kind):
                await ask(provider, streams=streams)

    assert server.asked == [OLDER, OLDER]


async def test_a_server_that_refuses_both_is_asked_twice() -> None:
    server = Picky("", 400, {"error": {"message": "Unknown parameters: max_tokens, max_completion_tokens"}})
    async with server.serving() as provider:
        for streams in (False, True):
            with pytest.raises(InvalidRequest):
                await ask(provider, streams=streams)

    assert server.asked == [OLDER, NEWER, OLDER, NEWER]


async def test_without_a_task_the_refused_name_counts_as_not_asked() -> None:
    """Who has a task tries the other one; from then on calls without a task have it at once."""
    server = Picky(NEWER, *AZURE)
    async with server.serving() as provider:
        await invoke(provider, msgspec.structs.replace(REQUEST, model="other"))
        server.asked.clear()
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert provider.begin(REQUEST, waiter)
        outcome = await waiter
        with pytest.raises(NotAsked):
            provider.read(outcome, REQUEST, 0.1)
        assert (await invoke(provider, REQUEST)).text == "yes"
        again: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert provider.begin(REQUEST, again)
        assert provider.read(await again, REQUEST, 0.1).text == "yes"

    assert server.asked == [OLDER, OLDER, NEWER, NEWER]


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "Unrecognized request argument supplied: max_tokens",
        "got an unexpected keyword argument 'max_tokens'",
        "[{'loc': ['body', 'max_tokens'], 'msg': 'extra fields not permitted', 'type': 'value_error.extra'}]",
    ],
)
async def test_a_name_is_refused_in_many_words(words: str) -> None:
    server = Picky(NEWER, 400, {"error": {"message": words}})
    async with server.serving() as provider:
        await ask(provider, streams=False)

    assert server.asked == [OLDER, NEWER]


async def test_a_refusal_that_is_read_once_the_other_name_is_known_counts_as_not_asked_too() -> None:
    """Calls without a task go out together; that of the first has been made again before the second one is read."""
    server = Picky(NEWER, *GATEWAY)
    async with server.serving() as provider:
        # For two connections.
        others = [invoke(provider, msgspec.structs.replace(REQUEST, model=name)) for name in ("m1", "m2")]
        await asyncio.gather(*others)
        server.asked.clear()
        waiters: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        assert all(provider.begin(REQUEST, waiter) for waiter in waiters)
        first, second = await asyncio.gather(*waiters)
        with pytest.raises(NotAsked):
            provider.read(first, REQUEST, 0.1)
        assert (await invoke(provider, REQUEST)).text == "yes"
        with pytest.raises(NotAsked):
            provider.read(second, REQUEST, 0.1)
        assert (await invoke(provider, REQUEST)).text == "yes"

    assert server.asked == [OLDER, OLDER, OLDER, NEWER, NEWER]
