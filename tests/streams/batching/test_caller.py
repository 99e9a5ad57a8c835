"""Batches over HTTP, against the stub: fewer calls, fewer tokens, the same answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from contracts.errors import InvalidRequest, ProviderTimeout
from contracts.payloads import InferenceAnswer, InferenceRequest, Message, Task
from contracts.settings import RouteSettings
from contracts.settings.models import FakeProvider
from streams.batching.caller import create_caller
from streams.fmstub.server import Server
from streams.providers.fake import Fake
from streams.providers.openai import OpenAI
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


async def ask_all(
    provider: OpenAI, kind: str, texts: list[str], task: Task = "chat", schema: dict[str, Any] | None = None
) -> list[InferenceAnswer]:
    batch = {"kind": kind, "max_wait_s": 0.2}
    route = RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m", "batch": batch})
    caller = create_caller(route, provider, schema)
    return await asyncio.gather(
        *(
            caller(
                InferenceRequest(
                    event_id=f"e{n}",
                    model="m",
                    messages=(Message("user", text),),
                    system=SYSTEM if task == "chat" else "",
                    output_schema=schema,
                    task=task,
                    timeout_s=10.0,
                )
            )
            for n, text in enumerate(texts)
        )
    )


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
    found = await asyncio.gather(ask_all(served[1], "pack", texts, schema=schema), return_exceptions=True)

    assert "amount" in str(found[0])


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
