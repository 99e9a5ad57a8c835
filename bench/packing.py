"""What packing spares: the same tickets one per call and several per call, over HTTP, against the stub.

The stub counts a token per four bytes of what it is sent, so the ratio is one of bytes on the wire, and no tokenizer's.
Run: `python -m bench.packing`; it takes seconds and needs no Kafka.
"""

import asyncio
import json
import sys

from bench.figures import Figure, publish
from contracts.payloads import InferenceAnswer, InferenceRequest, Message
from contracts.settings import RouteSettings
from contracts.settings.models import OpenAIProvider
from streams.batching.caller import create_caller
from streams.fmstub.call import Backend
from streams.fmstub.knobs import Knobs
from streams.fmstub.server import Server
from streams.providers.openai import OpenAI

_SCHEMA = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "priority": {"enum": ["low", "normal", "urgent"]}},
    "required": ["subject", "priority"],
}
_SENTENCE = "Name the subject of the ticket as its sender does, and say how urgent it is by the rules that follow. "
_CHARS_PER_TOKEN = 4
_TICKETS = 64
_GOAL = 0.3


def _tickets() -> list[str]:
    return [
        json.dumps(
            {
                "ticket": {
                    "id": 8000 + number,
                    "subject": f"Charged {number} times for order {4000 + number}",
                    "priority": ("low", "normal", "urgent")[number % 3],
                    "body": "The customer asks for a refund and is waiting for an answer since Monday.",
                }
            }
        )
        for number in range(_TICKETS)
    ]


async def _answers(provider: OpenAI, kind: str, max_events: int, system: str) -> list[InferenceAnswer]:
    batch = {"kind": kind, "max_events": max_events, "max_wait_s": 0.05}
    route = RouteSettings.model_validate({"name": "r", "prompt": {"user": "-"}, "model": "m", "batch": batch})
    caller = create_caller(route, provider, _SCHEMA)

    def request(number: int, text: str) -> InferenceRequest:
        return InferenceRequest(
            event_id=f"e{number}",
            model="m",
            messages=(Message("user", text),),
            system=system,
            output_schema=_SCHEMA,
        )

    return await asyncio.gather(*(caller(request(number, text)) for number, text in enumerate(_tickets())))


async def measure() -> list[Figure]:
    """Return the ratios, for short and long instructions and for small and large packs."""
    server = Server(Backend(Knobs()))
    provider = OpenAI(OpenAIProvider(kind="openai", base_url=f"http://127.0.0.1:{await server.start()}/v1"))
    await provider.start()
    figures: list[Figure] = []
    try:
        for tokens, events in ((250, 8), (1000, 4), (1000, 8), (1000, 16), (4000, 8)):
            figures += await _compare(server, provider, tokens, events)
    finally:
        await provider.aclose()
        await server.aclose()
    return figures


async def _compare(server: Server, provider: OpenAI, tokens: int, events: int) -> list[Figure]:
    system = (_SENTENCE * tokens)[: tokens * _CHARS_PER_TOKEN]
    stats = server.backend.stats
    before = stats.calls
    apart = await _answers(provider, "none", events, system)
    between = stats.calls
    packed = await _answers(provider, "pack", events, system)
    calls = (stats.calls - between) / (between - before)
    ratio = _input_tokens(packed) / _input_tokens(apart)
    is_same = [json.loads(one.text) for one in packed] == [json.loads(one.text) for one in apart]
    name = f"instructions of {tokens} tokens, {events} events per call"
    # The goal speaks of eight events and long instructions.
    is_claimed = events == 8 and tokens >= 1000  # noqa: PLR2004 - the claim's own numbers
    goal, holds = (f"<= {_GOAL}", ratio <= _GOAL) if is_claimed else ("", None)
    return [
        Figure(f"{name}: input tokens / one call each", round(ratio, 3), "ratio", goal, holds, is_strict=is_claimed),
        Figure(f"{name}: calls / one call each", round(calls, 3), "ratio"),
        Figure(f"{name}: same outputs", float(is_same), "1 = yes", "1", is_same, is_strict=True),
    ]


def _input_tokens(answers: list[InferenceAnswer]) -> int:
    return sum(answer.usage.input_tokens for answer in answers)


if __name__ == "__main__":
    sys.exit(publish("packing", "python -m bench.packing", 1, asyncio.run(measure())))
