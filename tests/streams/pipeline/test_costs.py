"""What calls have cost that gave no result: told in the dead letter, counted once."""

from typing import Any

import pytest

from contracts.codec import dead_letter
from contracts.errors import ContentBlocked, PenstockError, ProviderUnavailable
from contracts.metrics import REGISTRY
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from streams.providers.base import billed
from tests.streams.pipeline.support import SCHEMA, Bench, event, make_settings

PRICE = {"price": {"input_usd": 1.0, "output_usd": 10.0}}
PACK = {"order": "none", "output_schema": SCHEMA, "batch": {"kind": "pack", "max_events": 8, "max_wait_s": 0.1}}
NOTHING = {"retry": {"max_attempts": 1}}


class Billing:
    """Fails every call, and says what that has cost."""

    name = "billing"

    def __init__(self, kind: type[PenstockError]) -> None:
        self.kind = kind
        self.requests: list[InferenceRequest] = []

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    def stream(self, request: InferenceRequest) -> Any:
        raise NotImplementedError

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Cost 0.002 USD."""
        self.requests.append(request)
        error = self.kind("no")
        if isinstance(error, ProviderUnavailable):
            error.possibly_billed = True
        raise billed(error, Usage(1000, 100))


def costs() -> dict[str, float]:
    labels = {"provider": "billing", "model": "fake-1"}
    return {
        basis: REGISTRY.get_sample_value("penstock_fm_cost_usd_total", {**labels, "basis": basis}) or 0.0
        for basis in ("reported", "possibly_billed")
    }


@pytest.mark.parametrize("kind", [ContentBlocked, ProviderUnavailable])
async def test_what_a_failed_call_is_known_to_have_cost_is_told_and_counted_once(kind: type[PenstockError]) -> None:
    before = costs()
    bench = await Bench(settings=make_settings(NOTHING, model=PRICE), provider=Billing(kind)).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert letter.cost_usd == pytest.approx(0.002)
    assert costs()["reported"] - before["reported"] == pytest.approx(0.002)
    assert costs()["possibly_billed"] == before["possibly_billed"]


@pytest.mark.parametrize("kind", [ContentBlocked, ProviderUnavailable])
async def test_what_a_failed_call_for_several_events_has_cost_is_shared_out(kind: type[PenstockError]) -> None:
    before = costs()
    model = Billing(kind)
    settings = make_settings({**PACK, **NOTHING}, model=PRICE)
    bench = await Bench(settings=settings, provider=model).run(*(event(n, b'{"n": %d}' % n) for n in range(4)))
    told = sum(dead_letter(letter.headers).cost_usd or 0.0 for letter in bench.letters)

    assert len(bench.letters) == 4
    # A refusal may be one event's: the call is split until each is alone.
    assert len(model.requests) == (7 if kind is ContentBlocked else 1)
    assert told == pytest.approx(0.002 * len(model.requests))
    assert costs()["reported"] - before["reported"] == pytest.approx(told)
    assert costs()["possibly_billed"] == before["possibly_billed"]


async def test_an_answer_without_text_is_repaired_with_turns_that_all_have_some() -> None:
    """Bedrock refuses a blank turn, and the event would end as an invalid request."""

    class Silent(Billing):
        async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
            self.requests.append(request)
            return InferenceAnswer(text='{"n": 4}' if len(self.requests) > 1 else " ", model="m")

    model = Silent(ContentBlocked)
    bench = await Bench(settings=make_settings({"output_schema": SCHEMA}), provider=model).run(event())
    turns = model.requests[1].messages

    assert bench.result().output == {"n": 4}
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert all(turn.content.strip() for turn in turns)
