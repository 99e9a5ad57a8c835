"""Batches over HTTP, against the stub: fewer calls, fewer tokens, the same answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import pytest_asyncio

from contracts.errors import InvalidRequest, ProviderTimeout
from contracts.payloads import InferenceAnswer, InferenceRequest, Message, Task
from contracts.settings import RouteSettings
from contracts.settings.models import FakeProvider
from streams.batching.caller import create_caller
from streams.fmstub.server import Server
from streams.providers.base import Provider
from streams.providers.fake import Fake
from streams.providers.openai import OpenAI
from streams.providers.transport.base import Headers, Response, TooLong
from tests.streams.providers.labs import openai as provider_for
from tests.streams.providers.labs import started_stub

SCHEMA = {"type": "object", "properties": {"subject": {"type": "string"}}, "required": ["subject"]}
TICKETS = [json.dumps({"ticket": {"id": n, "subject": f"Charged {n} times", "body": "Help."}}) for n in range(8)]
SYSTEM = "Read the ticket and name its subject. Never guess, never add anything. " * 60


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Server, OpenAI]]:
    server, port = await started_stub()
    provider = provider_for(port)
    await provider.start()
    yield server, provider
    await provider.aclose()
    await server.aclose()


def asked(
    provider: Provider,
    batch: dict[str, Any],
    texts: list[str],
    task: Task = "chat",
    schema: dict[str, Any] | None = None,
    system: str = "",
) -> list[Awaitable[InferenceAnswer]]:
    """Return one call per text."""
    route = RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m", "batch": batch})
    caller = create_caller(route, provider, schema)
    return [
        caller(
            InferenceRequest(
                event_id=f"e{n}",
                model="m",
                messages=(Message("user", text),),
                system=system,
                output_schema=schema,
                task=task,
                timeout_s=10.0,
            )
        )
        for n, text in enumerate(texts)
    ]


async def ask_all(
    provider: OpenAI, kind: str, texts: list[str], task: Task = "chat", schema: dict[str, Any] | None = None
) -> list[InferenceAnswer]:
    batch = {"kind": kind, "max_wait_s": 0.2}
    return await asyncio.gather(*asked(provider, batch, texts, task, schema, SYSTEM if task == "chat" else ""))


async def test_packing_gives_the_same_outputs_for_less_than_a_third_of_the_input(
    served: tuple[Server, OpenAI],
) -> None:
    server, provider = served
    apart = await ask_all(provider, "none", TICKETS, schema=SCHEMA)
    calls_apart = server.backend.stats.calls
    packed = await ask_all(provider, "pack", TICKETS, schema=SCHEMA)

    assert [json.loads(one.text) for one in packed] == [json.loads(one.text) for one in apart]
    assert (calls_apart, server.backend.stats.calls - calls_apart) == (8, 1)
    input_apart, input_packed = (sum(one.usage.input_tokens for one in some) for some in (apart, packed))
    assert input_packed / input_apart <= 0.3


async def test_one_event_that_the_model_refuses_costs_the_others_nothing_but_time(
    served: tuple[Server, OpenAI],
) -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    texts = [f"Invoice over EUR {n}00 is due." for n in range(1, 8)]
    texts.insert(3, "No figure here at all.")
    calls = asked(served[1], {"kind": "pack", "max_wait_s": 0.2}, texts, schema=schema, system=SYSTEM)
    found = await asyncio.gather(*calls, return_exceptions=True)
    answers = [json.loads(one.text) if isinstance(one, InferenceAnswer) else type(one) for one in found]

    assert answers[3] is InvalidRequest
    assert "amount" in str(found[3])
    assert answers[:3] + answers[4:] == [{"amount": n * 100} for n in range(1, 8)]


@pytest.mark.parametrize("task", ["embedding", "completion"])
async def test_lists_of_inputs_give_each_event_what_it_would_have_got_alone(
    served: tuple[Server, OpenAI], task: Task
) -> None:
    apart = await ask_all(served[1], "none", TICKETS, task)
    listed = await ask_all(served[1], "inputs", TICKETS, task)

    assert [one.text for one in listed] == [one.text for one in apart]
    assert sum(one.usage.input_tokens for one in listed) == sum(one.usage.input_tokens for one in apart)


async def test_a_list_of_prompts_takes_the_stub_as_long_as_one(served: tuple[Server, OpenAI]) -> None:
    server, provider = served
    server.backend.knobs = server.backend.knobs.model_copy(update={"latency_s": 0.3})
    began_at_s = asyncio.get_running_loop().time()
    await ask_all(provider, "inputs", TICKETS, "completion")

    assert asyncio.get_running_loop().time() - began_at_s < 1.2


async def test_an_event_that_is_left_alone_and_refused_is_called_once() -> None:
    """Its companion's time was over before the call began; halves of the two would be the same call again."""
    provider = Fake(FakeProvider(kind="fake", script=({"error": "invalid_request"},)))
    batch = {"kind": "inputs", "max_wait_s": 0.2}
    route = RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m", "batch": batch})
    caller = create_caller(route, provider, None)
    requests = [
        InferenceRequest(
            event_id=name, model="m", messages=(Message("user", "hi"),), task="embedding", timeout_s=limit_s
        )
        for name, limit_s in (("late", 0.05), ("left", 10.0))
    ]

    failures = await asyncio.gather(*(caller(request) for request in requests), return_exceptions=True)

    assert [type(failure) for failure in failures] == [ProviderTimeout, InvalidRequest]
    assert provider.calls == {"left": 1}


class Lengthy:
    """A server whose answers are too long for lists of more than 100 inputs."""

    name = "lengthy"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def post(self, _path: str, body: bytes, _headers: Any, _timeout_s: float) -> Response:
        """Answer with a vector for each input."""
        inputs = json.loads(body)["input"]
        count = len(inputs) if isinstance(inputs, list) else 1
        self.sizes.append(count)
        if count > 100:
            message = "the server's answer is longer than 16777216 bytes"
            raise TooLong(message)
        data = [{"index": index, "embedding": [1.0]} for index in range(count)]
        return Response(200, Headers(), json.dumps({"data": data, "usage": {"prompt_tokens": count}}).encode())


async def test_a_list_whose_answer_is_too_long_is_asked_for_in_shorter_ones() -> None:
    provider, server = provider_for(1), Lengthy()
    provider._transport = server  # type: ignore[assignment]  # what a list needs of one
    batch = {"kind": "inputs", "max_events": 512, "max_bytes": 2**20, "max_wait_s": 0.05}
    answers = await asyncio.gather(*asked(provider, batch, ["x"] * 512, "embedding"))

    assert [answer.text for answer in answers] == ["[1.0]"] * 512
    assert server.sizes == [512, 256, 256, 128, 128, 128, 128, *[64] * 8]


async def test_each_prompt_of_a_list_counts_with_the_instructions_that_are_sent_with_it() -> None:
    """A model without roles reads them in every prompt, so they are paid for with each."""
    texts = ["hi there", "hi there " * 20]
    answers = {
        kind: await asyncio.gather(
            *asked(Fake(FakeProvider(kind="fake")), {"kind": kind}, texts, "completion", system="word " * 400)
        )
        for kind in ("inputs", "none")
    }
    listed, apart = ([answer.usage.input_tokens for answer in answers[kind]] for kind in ("inputs", "none"))

    assert listed == pytest.approx(apart, abs=3)


async def test_the_bytes_of_a_list_are_those_of_its_prompts_with_instructions() -> None:
    provider = Fake(FakeProvider(kind="fake"))
    batch = {"kind": "inputs", "max_bytes": 5000}
    await asyncio.gather(*asked(provider, batch, ["hi"] * 4, "completion", system="word " * 400))

    assert list(provider.sizes) == [2, 2]
