"""Answers that the model's limit has cut off."""

from typing import Any

import pytest

from contracts.codec import dead_letter
from contracts.errors import OutputInvalid
from contracts.payloads import InferenceAnswer
from streams.steps.validate import OutputContract, repair_turns
from tests.streams.pipeline.support import SCHEMA, Bench, event, make_settings


async def test_an_answer_cut_at_max_tokens_that_breaks_the_schema_ends_at_once_and_names_the_limit() -> None:
    """A repair would be paid for, and end there as well."""
    settings = make_settings({"output_schema": SCHEMA})
    bench = await Bench([{"answer": '{"n": 12', "finish_reason": "length"}], settings).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert bench.fake.calls["e0"] == 1
    assert (letter.reason, letter.disposition, letter.attempts) == ("output_truncated", "poison", 1)
    assert "max_tokens" in letter.message
    assert "models.m.max_tokens" in letter.message
    assert letter.answer == '{"n": 12'


async def test_an_answer_that_ends_at_max_tokens_and_is_of_the_schema_is_a_result() -> None:
    settings = make_settings({"output_schema": SCHEMA})
    bench = await Bench([{"answer": {"n": 1}, "finish_reason": "length"}], settings).run(event())

    assert (bench.result().output, bench.result().finish_reason) == ({"n": 1}, "length")


@pytest.mark.parametrize("route", [{"output_schema": SCHEMA}, {}], ids=["schema", "text"])
@pytest.mark.parametrize("reasoning", ["strip", "strip_unopened"])
async def test_thoughts_that_use_up_max_tokens_end_at_once_too(reasoning: str, route: dict[str, Any]) -> None:
    settings = make_settings(route, model={"reasoning": reasoning})
    bench = await Bench([{"answer": "<think>so much to sa", "finish_reason": "length"}], settings).run(event())

    assert bench.fake.calls["e0"] == 1
    assert dead_letter(bench.letters[0].headers).reason == "output_truncated"


async def test_a_repair_that_is_cut_off_ends_as_cut_off() -> None:
    settings = make_settings({"output_schema": SCHEMA})
    script: list[dict[str, Any]] = [{"answer": "no", "times": 1}, {"answer": '{"n": 12', "finish_reason": "length"}]
    bench = await Bench(script, settings).run(event())

    assert bench.fake.calls["e0"] == 2
    assert dead_letter(bench.letters[0].headers).reason == "output_truncated"


async def test_thoughts_in_front_of_an_answer_cost_no_repair() -> None:
    settings = make_settings({"output_schema": SCHEMA})
    bench = await Bench([{"answer": '<think>{"n": "?"}</think>\n{"n": 1}'}], settings).run(event())

    assert (bench.result().output, bench.fake.calls["e0"]) == ({"n": 1}, 1)


async def test_an_answer_that_the_limit_has_kept_from_beginning_is_no_result() -> None:
    """Its server has left the thoughts out."""
    bench = await Bench([{"answer": "", "finish_reason": "length"}]).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, bench.fake.calls["e0"]) == ("output_truncated", 1)
    assert "models.m.max_tokens" in letter.message


async def test_thoughts_with_nothing_behind_them_are_no_result_and_are_asked_for_an_answer_once() -> None:
    script: list[dict[str, Any]] = [{"answer": "<think>hm</think>\n", "times": 1}, {"answer": "yes"}]
    bench = await Bench(script).run(event())

    assert (bench.result().output, bench.fake.calls["e0"]) == ("yes", 2)


async def test_thoughts_alone_twice_end_as_a_dead_letter() -> None:
    bench = await Bench([{"answer": "<think>hm</think>"}]).run(event())

    assert bench.fake.calls["e0"] == 2
    assert dead_letter(bench.letters[0].headers).reason == "output_invalid"


def test_a_route_without_a_schema_is_not_asked_for_json() -> None:
    contract = OutputContract(make_settings().routes[0])
    with pytest.raises(OutputInvalid) as caught:
        contract.read(InferenceAnswer(text="", model="m", only_thoughts=True))

    said, asked = repair_turns(caught.value)
    assert said.content == "(no text)"
    assert "JSON" not in asked.content


async def test_an_empty_answer_that_the_model_has_ended_itself_is_a_result() -> None:
    """As of a prompt that asks for nothing where there is nothing."""
    bench = await Bench([{"answer": ""}]).run(event())

    assert (bench.result().output, bench.fake.calls["e0"]) == ("", 1)
