"""What cannot be batched is refused at start, with file, line and key."""

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from contracts.settings import build, parse

HEAD = """version: 1
providers: {p: {kind: %(provider)s}, b: {kind: bedrock, region: x}}
models: {m: {provider: %(name)s, model: x, task: %(task)s}}
worker: {max_in_flight: 64}
routes:
  - name: r
    prompt: {user: x}
    model: m
"""


def complaint(tail: str, provider: str = "fake", task: str = "chat", name: str = "p") -> str:
    text = HEAD % {"provider": provider, "task": task, "name": name} + tail
    with pytest.raises(ConfigError) as caught:
        build(parse(text, "penstock.yaml"), {}, Path())
    return str(caught.value)


def test_packing_needs_a_schema() -> None:
    assert complaint("    batch:\n      kind: pack") == (
        "penstock.yaml:10: routes[0].batch.kind: found 'pack', allowed: pack with an output_schema, by which the"
        " answers can be told apart"
    )


def test_packing_is_for_chat_models() -> None:
    said = complaint("    batch: {kind: pack}", task="embedding")

    assert "routes[0].batch.kind: found 'pack', allowed: inputs for a model whose task is embedding" in said


def test_lists_of_inputs_are_not_for_chat_models() -> None:
    assert "found 'inputs', allowed: inputs with a model whose task is embedding or completion" in (
        complaint("    batch: {kind: inputs}")
    )


@pytest.mark.parametrize(("provider", "task"), [("embedded", "completion")])
def test_a_task_that_the_provider_does_not_have_is_refused(provider: str, task: str) -> None:
    assert complaint("", provider, task) == (
        "penstock.yaml:3: models.m.task: found 'completion', allowed: what a provider of kind embedded can do:"
        " chat, embedding"
    )


def test_a_model_that_the_embedded_provider_does_not_have_is_refused_before_a_worker_holds_the_route() -> None:
    assert complaint("", "embedded", "chat") == (
        "penstock.yaml:3: models.m.model: found 'x', allowed: embedded/extract-v1, the only one that a provider of"
        " kind embedded has"
    )


def test_bedrock_takes_one_input_per_call() -> None:
    said = complaint("    batch: {kind: inputs}", task="embedding", name="b")

    assert "routes[0].batch.kind: found 'inputs', allowed: none: bedrock takes one input per call" in said
    assert "models.m.task: found 'embedding', allowed: what a provider of kind bedrock can do: chat" in said


def test_a_batch_larger_than_what_is_in_flight_would_never_fill() -> None:
    assert "routes[0].batch.max_events: found 100, allowed: at most worker.max_in_flight (64)" in (
        complaint("    output_schema: {type: object}\n    batch: {kind: pack, max_events: 100}")
    )


@pytest.mark.parametrize("limit", ["attempt_timeout_s", "deadline_s"])
def test_an_event_must_not_wait_longer_for_company_than_it_may_take(limit: str) -> None:
    route = f"    output_schema: {{type: object}}\n    {limit}: 5\n    batch: {{kind: pack, max_wait_s: "

    assert "routes[0].batch.max_wait_s: found 5.0, allowed: less than 5: then an event gives up waiting" in (
        complaint(route + "5}")
    )
    text = HEAD % {"provider": "fake", "task": "chat", "name": "p"} + route + "4.9}"
    assert build(parse(text, "penstock.yaml"), {}, Path()).routes[0].batch.max_wait_s == 4.9


def test_an_embedding_has_no_instructions() -> None:
    text = HEAD % {"provider": "fake", "task": "embedding", "name": "p"}
    text = text.replace("{user: x}", "{user: x, system: y}")
    with pytest.raises(ConfigError, match=r"routes\[0\]\.prompt\.system: found 'y', allowed: nothing: an embedding"):
        build(parse(text, "penstock.yaml"), {}, Path())


def test_a_limit_of_packed_answers_belongs_to_packing() -> None:
    assert "max_answer_tokens is for kind pack only" in complaint("    batch: {max_answer_tokens: 9}")
