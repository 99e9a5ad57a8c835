"""Several events in one call: what is asked, and how little is believed of the answer."""

import itertools
import json
import re
import secrets
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.payloads import InferenceAnswer, InferenceRequest, Message
from streams.steps.pack import Packer, draw_id, pack_schema, spared_share, unpack

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
IDS = ("a", "b", "c")


def requests(*texts: str, system: str = "Count.") -> list[InferenceRequest]:
    return [
        InferenceRequest(event_id=f"e{n}", model="m", messages=(Message("user", text),), system=system, max_tokens=100)
        for n, text in enumerate(texts)
    ]


def packer(max_answer_tokens: int | None = None) -> Packer:
    numbers = itertools.count(1)
    return Packer(SCHEMA, max_answer_tokens, lambda: f"id{next(numbers)}")


def answer(*entries: Any) -> InferenceAnswer:
    return InferenceAnswer(text=json.dumps({"answers": list(entries)}), model="m")


def entry(one: str, output: Any) -> dict[str, Any]:
    return {"id": one, "output": output}


def texts(found: tuple[InferenceAnswer | None, ...]) -> list[str | None]:
    return [one.text if one else None for one in found]


def test_the_instructions_are_sent_once_and_every_event_is_an_item() -> None:
    packed, ids = packer().pack(requests("x", 'say "y"'), 9.0)

    assert json.loads(packed.messages[0].content) == {
        "events": [{"id": "id1", "text": "x"}, {"id": "id2", "text": 'say "y"'}]
    }
    assert packed.system.startswith("Count.\n\n")
    assert (ids, packed.timeout_s) == (("id1", "id2"), 9.0)


def test_an_answer_may_be_as_long_as_all_answers_together_unless_it_is_limited() -> None:
    assert packer().pack(requests("x", "y"), 9.0)[0].max_tokens >= 200
    assert packer(150).pack(requests("x", "y"), 9.0)[0].max_tokens == 150


def test_ids_are_drawn_anew_for_every_call_and_never_twice_in_one() -> None:
    drawn = iter(["same", "same", "other", "third"])
    first = Packer(SCHEMA, make_id=lambda: next(drawn)).pack(requests("x", "y"), 9.0)[1]
    real = Packer(SCHEMA)

    assert first == ("same", "other")
    assert real.pack(requests("x"), 9.0)[1] != real.pack(requests("x"), 9.0)[1]


def test_an_id_cannot_be_read_as_a_number_or_a_word() -> None:
    """A model writes `"5e1234"` back as a JSON number now and then, and nothing of its answer is believed then."""
    drawn = {draw_id() for _ in range(2000)}

    assert len(drawn) >= 1990
    assert all(re.fullmatch("[b-df-hj-np-tv-z]{6}", one) for one in drawn)


def test_an_id_takes_one_random_number_since_every_packed_event_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [0, 20**6 - 1, 1, 20**5]
    limits: list[int] = []

    def below(limit: int) -> int:
        limits.append(limit)
        return numbers[len(limits) - 1]

    monkeypatch.setattr(secrets, "randbelow", below)
    monkeypatch.setattr(secrets, "choice", None)

    assert [draw_id() for _ in numbers] == ["bbbbbb", "zzzzzz", "bbbbbc", "cbbbbb"]
    assert limits == [20**6] * len(numbers)


def test_the_schema_is_the_same_for_every_call_because_providers_compile_it() -> None:
    one = Packer(SCHEMA)

    assert one.pack(requests("x", "y"), 9.0)[0].output_schema == one.pack(requests("z"), 9.0)[0].output_schema


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"$defs": {"count": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/count"}}, "required": ["n"]},
        {"properties": {"n": {"type": "integer"}, "m": {"$ref": "#/properties/n"}}, "required": ["n"]},
        {"$id": "urn:x", "properties": {"n": {"type": "integer"}, "child": {"$ref": "#"}}, "required": ["n"]},
        {"properties": {"n": {"type": "integer"}, "$ref": {"type": "string"}}, "required": ["n"]},
        {
            "properties": {"n": {"$ref": "#/$defs/own"}},
            "$defs": {
                "own": {
                    "$id": "https://example.com/own",
                    "$ref": "#/properties/c",
                    "properties": {"c": {"type": "integer"}},
                }
            },
        },
        {"properties": {"n": {"$ref": "#/properties/const"}, "const": {"type": "integer"}}},
    ],
)
def test_a_packed_answer_must_satisfy_the_routes_schema_in_each_entry(schema: dict[str, Any]) -> None:
    packed = pack_schema(schema)

    assert jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"n": 1})]})
    assert not jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"n": "x"})]})


def test_references_of_the_schema_still_point_where_they_did() -> None:
    packed = pack_schema({"properties": {"n": {"type": "integer"}, "m": {"$ref": "#/properties/n"}}})

    assert not jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"m": "x"})]})


@pytest.mark.parametrize(
    ("reference", "also"),
    [
        (
            "https://example.com/count#/$defs/n",
            {"$id": "https://example.com/count", "$defs": {"n": {"type": "integer"}}},
        ),
        (
            "https://example.com/count#n",
            {"$id": "https://example.com/count#", "$defs": {"n": {"$anchor": "n", "type": "integer"}}},
        ),
        ("#/%24defs/n", {"$defs": {"n": {"type": "integer"}}}),
        ("#/$defs_of_ours/n", {"$defs_of_ours": {"n": {"type": "integer"}}}),
    ],
)
def test_a_reference_is_followed_in_whatever_form(reference: str, also: dict[str, Any]) -> None:
    packed = pack_schema({"properties": {"m": {"$ref": reference}}} | also)

    assert jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"m": 1})]})
    assert not jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"m": "x"})]})


@pytest.mark.parametrize("keyword", ["const", "default"])
def test_a_value_that_looks_like_a_reference_stays_as_it_is(keyword: str) -> None:
    value = {"$ref": "#/x"}
    packed = pack_schema({"properties": {"n": {keyword: value, "enum": [value], "examples": [value]}}})

    entry_schema = packed["properties"]["answers"]["items"]["properties"]["output"]
    assert entry_schema["properties"]["n"] == {keyword: value, "enum": [value], "examples": [value]}


def test_an_anchor_of_the_schema_is_found_where_it_stands_now() -> None:
    schema = {"$defs": {"n": {"$anchor": "count", "type": "integer"}}, "properties": {"m": {"$ref": "#count"}}}
    packed = pack_schema(schema)

    assert jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"m": 1})]})
    assert not jsonschema_rs.is_valid(packed, {"answers": [entry("a", {"m": "x"})]})


def test_answers_are_matched_by_id_whatever_their_order() -> None:
    found = unpack(answer(entry("c", 3), entry("a", 1), entry("b", 2)), IDS)

    assert texts(found) == ["1", "2", "3"]


def test_an_event_that_is_missing_has_no_answer() -> None:
    assert texts(unpack(answer(entry("a", 1), entry("c", 3)), IDS)) == ["1", None, "3"]


def test_an_event_that_is_answered_twice_has_no_answer() -> None:
    assert texts(unpack(answer(entry("a", 1), entry("b", 2), entry("b", 2), entry("c", 3)), IDS)) == ["1", None, "3"]


@pytest.mark.parametrize(
    "said",
    [
        answer(entry("a", 1), entry("b", 2), entry("c", 3), entry("d", 4)),
        answer(entry("a", 1), entry("b", 2), {"id": "c"}),
        answer(entry("a", 1), entry("b", 2), {**entry("c", 3), "also": 1}),
        answer(entry("a", 1), entry("b", 2), ["c", 3]),
        answer(entry("a", 1), entry("b", 2), {"id": 7, "output": 3}),
        InferenceAnswer(text='{"answers": [{"id": "a", "output": 1}, {"id": "b', model="m"),
        InferenceAnswer(text='[{"id": "a", "output": 1}]', model="m"),
        InferenceAnswer(text="I cannot do that.", model="m"),
        InferenceAnswer(text='{"answers": [{"id": "a", "id": "b", "output": 1}]}', model="m"),
        InferenceAnswer(text='{"answers": [{"id": "a", "output": 1, "output": 2}]}', model="m"),
        InferenceAnswer(
            text='{"answers": [{"id": "a", "output": 1}], "answers": [{"id": "b", "output": 1}]}', model="m"
        ),
        InferenceAnswer(text="", model="m"),
    ],
)
def test_an_answer_with_a_stranger_in_it_or_of_another_shape_is_not_believed_at_all(said: InferenceAnswer) -> None:
    assert unpack(said, IDS) == (None, None, None)


def test_an_answer_in_a_fence_is_read() -> None:
    text = "Here:\n```json\n" + answer(entry("a", 1)).text + "\n```"

    assert texts(unpack(InferenceAnswer(text=text, model="m"), ("a",))) == ["1"]


@given(said=st.lists(st.tuples(st.sampled_from([*IDS, "d"]), st.integers()), max_size=6))
def test_whatever_is_answered_an_event_gets_only_what_stands_once_under_its_own_id(said: list[tuple[str, int]]) -> None:
    found = unpack(answer(*(entry(one, output) for one, output in said)), IDS)

    for one, own in zip(IDS, found, strict=True):
        outputs = [output for other, output in said if other == one]
        assert own is None or [json.loads(own.text)] == outputs
        is_trusted = all(other in IDS for other, _ in said)
        assert (own is not None) == (is_trusted and len(outputs) == 1)


def test_long_instructions_are_what_packing_spares() -> None:
    several = requests(*["short event"] * 8, system="Instructions. " * 200)
    packed, _ = packer().pack(several, 9.0)

    assert spared_share(packed, several) > 2
    assert spared_share(packer().pack(requests("x" * 9000), 9.0)[0], requests("x" * 9000)) < 0
