"""What the extractor says about the events that people send."""

import json
from typing import Any

import jsonschema_rs
import pytest

from contracts.errors import InvalidRequest
from streams.providers.extract.answer import answer, cut, estimate_tokens

OPPORTUNITY = {
    "event": "opportunity.updated",
    "sobject": {
        "attributes": {"type": "Opportunity"},
        "Id": "006xx0000012345AAA",
        "Name": "Acme - 200 seats",
        "StageName": "Prospecting",
        "Amount": 48000,
        "CurrencyIsoCode": "USD",
        "CloseDate": "2026-12-18",
        "Account": {"Name": "Acme Corp"},
        "Owner": {"Name": "Dana Reyes", "Email": "dana@example.com"},
        "NextStep": "Send the questionnaire",
        "Description": "Acme wants to move 200 users before the contract ends in January. Legal needs the DPA.",
    },
}
ISSUE = {
    "action": "opened",
    "issue": {
        "number": 42,
        "title": "Crash on start",
        "user": {"login": "alice"},
        "labels": [{"name": "bug"}, {"name": "p1"}],
        "state": "open",
        "body": "## Steps\n1. Run `app`\n\nIt raises `ImportError: no module x`. This blocks our release.",
    },
    "repository": {"id": 1, "name": "r", "full_name": "o/r", "description": "A tool", "owner": {"login": "o"}},
    "sender": {"login": "alice"},
}
INVOICE = {
    "id": "evt_1NG8Du2eZvKYlo2C",
    "object": "event",
    "type": "invoice.payment_failed",
    "livemode": False,
    "data": {
        "object": {
            "id": "in_1NG8Du2eZvKYlo2C",
            "object": "invoice",
            "amount_due": 48050,
            "currency": "usd",
            "customer_name": "Acme Corp",
            "due_date": 1766016000,
            "number": "INV-0042",
            "status": "open",
        }
    },
}
TICKET = {
    "ticket": {
        "id": 8812,
        "subject": "Charged twice for October",
        "description": "I was charged twice for order 4411, EUR 30.00 each. Please refund one. It was not declined.",
        "priority": "high",
        "status": "new",
        "requester": {"name": "Maria Silva", "email": "maria@example.com"},
    }
}


def prompt(document: Any) -> list[str]:
    return [
        f"Summarise the event for a busy person.\n<event-8f3a>\n{json.dumps(document)}\n</event-8f3a>\nAnswer in JSON."
    ]


@pytest.mark.parametrize(
    ("document", "headline"),
    [
        (
            OPPORTUNITY,
            (
                "Opportunity 'Acme - 200 seats' (USD 48,000, stage Prospecting), updated, account Acme Corp, "
                "closes 2026-12-18, owner Dana Reyes, next step: Send the questionnaire."
            ),
        ),
        (ISSUE, "Issue #42 'Crash on start' in o/r (status open, labels bug, p1), opened by alice."),
        (INVOICE, "Invoice INV-0042 (USD 480.50, status open), payment failed, account Acme Corp, due 2025-12-18."),
        (TICKET, "Ticket #8812 'Charged twice for October' (status new, priority high), by Maria Silva."),
    ],
)
def test_a_summary_begins_with_what_a_person_wants_to_know(document: Any, headline: str) -> None:
    assert answer(prompt(document), None).startswith(headline)


def test_the_prompts_own_instructions_are_not_summed_up() -> None:
    assert "busy person" not in answer(prompt(TICKET), None)


def test_passages_beside_the_event_are_not_summed_up() -> None:
    passages = "<passages>Refunds take five days. All refunds need approval.</passages>"

    assert "five days" not in answer([passages + prompt(TICKET)[0]], None)


def test_negations_stay_as_they_are() -> None:
    assert "was not declined" in answer(prompt(TICKET), None)


def test_plain_text_is_summed_up_by_its_best_sentences() -> None:
    text = (
        "Hi team. The database failed over at 03:10 because the disk of node 4 was full. Lunch is at noon. "
        "The failover took 14 minutes and 312 requests failed. We resolved it by adding space to the database node."
    )

    said = answer([text], None)

    assert "because the disk of node 4 was full" in said
    assert "Lunch" not in said.partition("Key facts")[0]


def test_fields_written_as_lines_are_read_too() -> None:
    said = answer(
        ["Subject: Printer on fire\nPriority: urgent\nRequester: Jo\n\nIt burns. Please send help now."], None
    )

    assert said.startswith("Event 'Printer on fire' (priority urgent), by Jo.")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["summary", "category", "priority", "key_facts", "amount", "close_date", "owner"],
    "properties": {
        "summary": {"type": "string", "maxLength": 120},
        "category": {"enum": ["billing", "technical", "sales", "other"]},
        "priority": {"enum": ["low", "normal", "high", "urgent"]},
        "amount": {"type": ["number", "null"]},
        "close_date": {"type": ["string", "null"], "format": "date"},
        "owner": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "is_urgent": {"type": "boolean"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "key_facts": {"type": "array", "items": {"$ref": "#/$defs/fact"}, "maxItems": 5, "uniqueItems": True},
        "entities": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "value": {"type": "string"}},
                "required": ["type", "value"],
            },
        },
    },
    "$defs": {"fact": {"type": "string", "maxLength": 60}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (OPPORTUNITY, {"category": "sales", "amount": 48000, "close_date": "2026-12-18", "owner": "Dana Reyes"}),
        (ISSUE, {"category": "technical", "amount": None, "close_date": None, "owner": None, "is_urgent": True}),
        (INVOICE, {"category": "billing", "amount": 480.5, "owner": None}),
        (TICKET, {"category": "billing", "priority": "high", "amount": 30, "close_date": None}),
    ],
)
def test_a_schema_is_filled_from_the_event(document: Any, expected: dict[str, Any]) -> None:
    filled = json.loads(answer(prompt(document), SCHEMA))

    assert jsonschema_rs.is_valid(SCHEMA, filled)
    assert {key: filled[key] for key in expected} == expected


def one(name: str, schema: dict[str, Any], document: Any = TICKET) -> Any:
    whole = {"type": "object", "properties": {name: schema}, "required": [name]}
    return json.loads(answer(prompt(document), whole))[name]


def test_keywords_of_the_schema_decide_over_the_built_in_ones() -> None:
    described = {"enum": ["alpha", "beta"], "description": "beta: refund, charged; alpha: crash"}
    stated = {"enum": ["alpha", "beta"], "x-keywords": {"alpha": ["refund"]}}

    assert one("team", described) == "beta"
    assert one("team", stated) == "alpha"


def test_labels_that_nothing_speaks_for_give_the_neutral_one() -> None:
    assert one("kind", {"enum": ["zebra", "other", "giraffe"]}) == "other"


def test_a_negated_word_does_not_speak_for_its_label() -> None:
    document = {"ticket": {"id": 1, "subject": "Info", "description": "There is no outage at all."}}

    assert one("kind", {"enum": ["outage", "other"]}, document) == "other"


@pytest.mark.parametrize(
    ("name", "schema", "expected"),
    [
        ("requester_email", {"type": "string", "format": "email"}, "maria@example.com"),
        ("order_id", {"type": "string", "pattern": r"order \d+"}, "order 4411"),
        ("title", {"type": "string"}, "Charged twice for October"),
        ("next_step", {"type": "string"}, "Please refund one."),
        ("kind", {"const": "ticket"}, "ticket"),
        ("urgency", {"type": "integer", "minimum": 1, "maximum": 5}, 3),
        ("amounts", {"type": "array", "items": {"type": "string"}}, ["EUR 30.00"]),
        ("topics", {"type": "array", "items": {"enum": ["billing", "shipping"]}}, ["billing"]),
        ("detail", {"type": "object", "properties": {"status": {"type": "string"}}}, {"status": "new"}),
        ("any", {"allOf": [{"type": "string"}, {"maxLength": 12}]}, None),
    ],
)
def test_fields_are_filled_by_name_and_form(name: str, schema: dict[str, Any], expected: Any) -> None:
    found = one(name, schema)

    assert found == expected or (expected is None and 0 < len(found) <= 12)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "number"}, "/tax_rate"),
        ({"type": "string", "format": "uri"}, "/tax_rate"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 1}, "/tax_rate"),
    ],
)
def test_a_required_field_without_a_value_is_refused_by_name(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        one("tax_rate", schema)


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="schema is not valid"):
        answer(prompt(TICKET), {"type": "nonsense"})


@pytest.mark.parametrize("text", ["", "   ", "{}", "[]", "null", '{"a": NaN}', '{"a": 1e999}', '{"a": {"b": [[[]]]}}'])
def test_an_empty_prompt_is_answered_too(text: str) -> None:
    assert isinstance(answer([text], None), str)


def test_a_cut_answer_is_whole_characters_within_its_tokens() -> None:
    text, is_cut = cut("\u4f60\u597d\u4f60\u597d", 2)

    assert (text, is_cut) == ("\u4f60\u597d", True)
    assert estimate_tokens(text) == 2


def test_data_that_is_nested_too_deeply_to_be_walked_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        answer([json.dumps({"name": [1]}).replace("[1]", "[" * 700 + "]" * 700)], None)
