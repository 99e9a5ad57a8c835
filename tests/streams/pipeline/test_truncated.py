"""Answers that the model's limit has cut off."""

from typing import Any

import pytest

from contracts.codec import dead_letter
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


@pytest.mark.parametrize("reasoning", ["strip", "strip_unopened"])
async def test_thoughts_that_use_up_max_tokens_end_at_once_too(reasoning: str) -> None:
    settings = make_settings({"output_schema": SCHEMA}, model={"reasoning": reasoning})
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
