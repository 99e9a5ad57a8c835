"""Samples: seeded, varied, with shared keys, and readable by the sources of the working example."""

import random
from collections import Counter
from typing import Any

import pytest
from jsonpointer import resolve_pointer

from contracts.codec import decode_any_json
from contracts.settings import SourceSettings
from producers.samples.base import Sample, texts
from producers.samples.table import SAMPLES, sampler

NAMES = sorted(SAMPLES)


def source(scheme: str, **fields: Any) -> SourceSettings:
    document = {"scheme": scheme, "secrets": [{"id": "a", "value": "env:S"}], "type": "t"}
    return SourceSettings.model_validate(document | fields)


def many(name: str, count: int = 200) -> list[Sample]:
    rng = random.Random(1)  # noqa: S311 - sample data
    return [SAMPLES[name](rng) for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_sequence(name: str) -> None:
    assert many(name, 20) == many(name, 20)


@pytest.mark.parametrize("name", NAMES)
def test_every_event_has_its_own_id_and_several_share_a_key(name: str) -> None:
    samples = many(name)

    assert len({sample.id for sample in samples}) == 200
    assert len({sample.body for sample in samples}) == 200
    assert Counter(sample.key for sample in samples).most_common(1)[0][1] >= 5


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("github", "/issue/body"),
        ("github", "/pull_request/body"),
        ("salesforce", "/opportunity/Description"),
        ("stripe", "/data/object/metadata/account_note"),
        ("stripe", "/data/object/evidence/customer_communication"),
        ("support", "/data/description"),
    ],
)
def test_there_are_at_least_six_different_texts_worth_reading(name: str, longest: str) -> None:
    documents = [decode_any_json(sample.body) for sample in many(name)]
    found = {resolve_pointer(document, longest, "") for document in documents} - {""}

    assert len(found) >= 6
    assert min(map(len, found)) > 50


def test_github_tells_the_kind_in_a_header_and_the_action_in_the_body() -> None:
    for sample in many("github"):
        document = decode_any_json(sample.body)
        kind = "pull_request" if "pull_request" in document else "issue"
        assert sample.headers["x-github-event"] == {"issue": "issues"}.get(kind, kind)
        assert sample.headers["x-github-delivery"] == sample.id
        assert document["action"] == "opened"
        assert document["repository"]["full_name"] == sample.key
        assert document[kind]["html_url"].startswith(document["repository"]["html_url"])


def test_stripe_sends_failed_invoices_and_disputes() -> None:
    kinds = Counter(decode_any_json(sample.body)["type"] for sample in many("stripe"))

    assert set(kinds) == {"invoice.payment_failed", "charge.dispute.created"}
    assert min(kinds.values()) > 30


def test_two_events_about_one_opportunity_agree_on_its_facts() -> None:
    facts: dict[str, Any] = {}
    for sample in many("salesforce"):
        document = decode_any_json(sample.body)
        agreed = {name: document["opportunity"][name] for name in ("Name", "Amount", "Owner", "Description")}
        assert facts.setdefault(sample.key, agreed) == agreed


def test_every_issue_and_pull_request_belongs_to_a_known_repository() -> None:
    known = texts("github")
    for entry in known["issues"] + known["pull_requests"]:
        assert entry["repository"] in known["repositories"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "github",
            {"scheme": "github", "type": "com.github.{header:x-github-event}", "id": "header:x-github-delivery"},
        ),
        ("stripe", {"scheme": "stripe", "type": "com.stripe.{json:/type}", "key": "json:/data/object/customer"}),
        ("support", {"scheme": "standard-webhooks", "type": "{json:/type}", "key": "json:/data/ticket_id"}),
    ],
)
def test_a_source_whose_fields_the_sample_has_gets_that_sample(name: str, fields: dict[str, Any]) -> None:
    assert sampler(name, source(**fields)) is SAMPLES[name]


def test_a_source_of_another_name_gets_the_sample_of_its_scheme() -> None:
    assert sampler("our-billing", source("stripe")) is SAMPLES["stripe"]


def test_a_source_that_reads_other_fields_gets_a_generic_event_that_has_them() -> None:
    settings = source(
        "slack", type="com.shop.{json:/event/kind}.{header:x-shop-topic}", id="json:/event/id", key="header:x-shop-id"
    )

    sample = sampler("shop", settings)(random.Random(1))  # noqa: S311 - sample data

    document = decode_any_json(sample.body)
    assert document["event"] == {"id": sample.id, "kind": "sample"}
    assert sample.headers == {"x-shop-topic": "sample", "x-shop-id": sample.key}
