"""The scripted provider."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, ContentBlocked, ProviderUnavailable, Throttled
from contracts.payloads import InferenceAnswer, InferenceRequest, Message, Task
from contracts.settings.models import FakeProvider
from streams.providers.fake import Fake
from tests.streams.providers.labs import FakeLab
from tests.suites.provider import ProviderSuite, ask


@pytest.fixture
async def lab() -> AsyncIterator[FakeLab]:
    lab = FakeLab()
    await lab.provider.start()
    yield lab
    await lab.provider.aclose()


class TestFake(ProviderSuite):
    """It keeps the protocol."""


def play(*script: dict[str, Any], seed: int = 0) -> Fake:
    return Fake(FakeProvider(kind="fake", script=script, seed=seed))


async def outcomes(fake: Fake, lab: FakeLab, *event_ids: str) -> list[str]:
    found = []
    for event_id in event_ids:
        try:
            found.append((await fake.invoke(ask(lab, event_id=event_id))).text)
        except (ProviderUnavailable, Throttled) as error:
            found.append(error.reason)
    return found


async def test_steps_are_used_up_in_order(lab: FakeLab) -> None:
    fake = play({"error": "throttled", "times": 2}, {"answer": "one", "times": 1}, {"answer": "two"})

    assert await outcomes(fake, lab, "a", "b", "c", "d", "e") == ["throttled", "throttled", "one", "two", "two"]


async def test_a_step_can_be_used_up_per_event(lab: FakeLab) -> None:
    fake = play({"error": "provider_unavailable", "times_per_event": 1}, {"answer": "ok"})

    assert await outcomes(fake, lab, "a", "b", "a", "b") == ["provider_unavailable"] * 2 + ["ok"] * 2


async def test_a_step_can_be_for_an_event_or_a_text(lab: FakeLab) -> None:
    fake = play({"match": "evt-b", "answer": "for b"}, {"match": "Charged twice", "answer": "by text"})

    assert await outcomes(fake, lab, "evt-a", "evt-b") == ["by text", "for b"]


async def test_one_seed_gives_one_sequence(lab: FakeLab) -> None:
    step = {"error": "throttled", "probability": 0.5}
    ids = [str(number) for number in range(40)]

    runs = [await outcomes(play(step, {"answer": "ok"}, seed=3), lab, *ids) for _ in range(2)]

    assert runs[0] == runs[1]
    assert set(runs[0]) == {"throttled", "ok"}


async def test_calls_and_answers_are_counted_per_event(lab: FakeLab) -> None:
    fake = play({"error": "throttled", "times_per_event": 1}, {"answer": "ok"})

    await outcomes(fake, lab, "a", "a", "b")

    assert dict(fake.calls) == {"a": 2, "b": 1}
    assert dict(fake.answered) == {"a": 1}


async def test_an_answer_that_is_no_text_becomes_json(lab: FakeLab) -> None:
    assert await outcomes(play({"answer": {"ok": True}}), lab, "a") == ['{"ok": true}']


async def test_a_script_can_be_a_file(lab: FakeLab, tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("- answer: from the file\n")

    fake = Fake(FakeProvider(kind="fake", script_file=script))

    assert await outcomes(fake, lab, "a") == ["from the file"]


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"fault": "throttled"}, "step 1, fault"),
        ({"error": "hunger"}, "step 1, error"),
        ({"probability": 2}, "step 1, probability"),
    ],
)
def test_a_wrong_step_is_a_config_error_that_names_it(step: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        play(step)


@pytest.mark.parametrize("text", ["just text", "- 1", "{"])
def test_a_file_that_is_no_script_is_a_config_error(tmp_path: Path, text: str) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(text)

    with pytest.raises(ConfigError, match="script"):
        Fake(FakeProvider(kind="fake", script_file=script))


def _several(*texts: str, task: Task = "completion") -> list[InferenceRequest]:
    return [
        InferenceRequest(event_id=f"e{n}", model="m", messages=(Message("user", text),), task=task)
        for n, text in enumerate(texts)
    ]


async def test_a_list_is_one_call_that_takes_as_long_as_its_slowest_and_counts_each_event() -> None:
    fake = Fake(FakeProvider(kind="fake", script=({"match": "b", "latency_s": 0.05, "answer": "B"}, {"answer": "A"})))
    began_at_s = asyncio.get_running_loop().time()
    found = await fake.invoke_many(_several("a", "b", "b"), 5.0)

    assert [one.text for one in found.answers if isinstance(one, InferenceAnswer)] == ["A", "B", "B"]
    assert 0.04 < asyncio.get_running_loop().time() - began_at_s < 2
    assert (list(fake.sizes), dict(fake.calls)) == ([3], {"e0": 1, "e1": 1, "e2": 1})


async def test_a_list_fails_with_what_the_script_says_to_one_of_it() -> None:
    fake = Fake(FakeProvider(kind="fake", script=({"match": "b", "error": "content_blocked"},)))

    with pytest.raises(ContentBlocked, match="e1"):
        await fake.invoke_many(_several("a", "b"), 5.0)


async def test_an_embedding_is_a_vector_and_has_no_output_tokens() -> None:
    found = await Fake(FakeProvider(kind="fake")).invoke(_several("paid late", task="embedding")[0])

    assert len(json.loads(found.text)) == 256
    assert (found.finish_reason, found.usage.output_tokens) == ("stop", 0)
