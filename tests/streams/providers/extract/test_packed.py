"""The offline model answers a packed call event by event, as it would one by one."""

import json
from typing import Any

import pytest

from contracts.errors import InvalidRequest
from contracts.payloads import InferenceRequest, Message
from streams.providers.extract.answer import answer
from streams.steps.pack import Packer

SCHEMA = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "copy": {"$ref": "#/properties/subject"}},
    "required": ["subject"],
}
DEFINED = {"$defs": {"s": {"type": "string"}}, "type": "object", "properties": {"subject": {"$ref": "#/$defs/s"}}}
TEXTS = tuple(json.dumps({"ticket": {"id": n, "subject": f"Charged {n} times"}}) for n in range(3))


def packed(schema: dict[str, Any], *texts: str) -> str:
    requests = [InferenceRequest(event_id="e", model="m", messages=(Message("user", text),)) for text in texts]
    request, _ = Packer(schema).pack(requests, 1.0)
    return answer([request.messages[0].content], request.output_schema)


@pytest.mark.parametrize("schema", [SCHEMA, DEFINED])
def test_each_event_gets_the_output_of_a_call_of_its_own(schema: dict[str, Any]) -> None:
    outputs = [one["output"] for one in json.loads(packed(schema, *TEXTS))["answers"]]

    assert outputs == [json.loads(answer([text], schema)) for text in TEXTS]
    assert [output["subject"] for output in outputs] == [f"Charged {n} times" for n in range(3)]


def test_one_event_that_cannot_be_answered_refuses_the_call_as_a_server_would() -> None:
    with pytest.raises(InvalidRequest):
        packed({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}, *TEXTS, "no number")


def test_a_prompt_that_only_looks_packed_is_an_ordinary_one() -> None:
    text = json.dumps({"events": [{"id": "a", "text": "Charged twice"}]})

    schema = {"type": "object", "properties": {"summary": {"type": "string"}}}

    assert set(json.loads(answer([text], schema))) == {"summary"}
