"""The AsyncAPI document says what really lies on the topics."""

import json
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from contracts import codec
from contracts.envelope import Event
from contracts.payloads import RESULT_TYPE, DeadLetter, DeliveryNote, InferenceResult, Provenance, RetryNote, Usage
from contracts.settings import build, parse
from contracts.topics import Topic, Topics
from gateways.asyncapi.document import asyncapi
from gateways.asyncapi.messages import messages_on
from gateways.cli.main import cli
from gateways.ingress.webhooks import KEY_ID_HEADER, RECEIVED_AT_HEADER, SCHEME_HEADER
from tests.gateways.asyncapi.settings import RICH, rich

AT = codec.Position("acme.events.bulk.v1", 3, 7, 1)
EVENT = Event(
    id="1",
    source="github",
    type="t",
    data=b"{}",
    time="2026-01-01T00:00:00Z",
    subject="s",
    datacontenttype="application/json",
    dataschema="urn:x",
    extensions=dict.fromkeys(
        ("partitionkey", "expirytime", "traceparent", "delivery", "owner", "connectionid", "replyto"), "x"
    ),
)
NOTE = RetryNote(
    topic="t", partition=0, offset=0, timestamp_ms=0, not_before_ms=0, deadline_ms=0, reason="throttled", attempts=1
)
LETTER = DeadLetter(
    reason="r", disposition="poison", message="", attempts=1, route="", topic="t", partition=0, offset=0, failed_at=""
)
NOT_YET = DeliveryNote(
    state="waiting", door="d", destination="", attempts=1, reason="r", topic="t", partition=0, offset=0,
    timestamp_ms=0, first_at_ms=0, at="t",
)  # fmt: skip


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """Generate the document of a configuration that uses what it can say."""
    return asyncapi(rich(tmp_path))


def described(document: dict[str, Any], kind: str) -> set[str]:
    return set(document["components"]["schemas"][f"headers.{kind}"]["properties"])


def required(document: dict[str, Any], kind: str) -> set[str]:
    return set(document["components"]["schemas"][f"headers.{kind}"]["required"])


def result(output: Any) -> dict[str, Any]:
    origin = Provenance(provider="local", model="m", route="triage", prompt_digest="d")
    value = InferenceResult(
        event_id="1",
        source="github",
        type="t",
        output=output,
        provenance=origin,
        usage=Usage(1, 2),
        attempts=1,
        completed_at="2026-01-01T00:00:00Z",
        duration_s=1.0,
    )
    found: dict[str, Any] = msgspec.json.decode(codec.encode_json(value))
    return found


def is_valid(document: dict[str, Any], payload: dict[str, Any], value: Any) -> bool:
    # References are to the document's own root.
    return jsonschema_rs.Draft7Validator({**document, **payload}).is_valid(value)


def test_every_topic_of_the_configuration_is_a_channel(document: dict[str, Any]) -> None:
    table = Topics("acme").table(frozenset({"acme.triage.v1"}), has_doors=True)

    assert [channel["address"] for channel in document["channels"].values()] == [topic.name for topic in table]


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("event", codec.encode_event(EVENT)),
        ("outcome", codec.outcome_headers(EVENT, RESULT_TYPE, "2026-01-01T00:00:00Z", "app", AT)),
        ("dead-letter", codec.dead_letter_headers(codec.encode_event(EVENT), LETTER)),
        ("delivery", codec.delivery_headers(codec.outcome_headers(EVENT, RESULT_TYPE, "t", "app", AT), NOT_YET)),
        ("retry", codec.retry_headers(codec.encode_event(EVENT), NOTE, "app", AT)),
    ],
)
def test_every_header_that_the_codec_writes_is_described(
    document: dict[str, Any], kind: str, written: codec.Headers
) -> None:
    names = {name for name, _ in written}

    assert names - described(document, kind) == set()
    assert required(document, kind) - names == set()


def test_a_kind_of_topic_that_is_not_described_is_said_to_be_our_own(tmp_path: Path) -> None:
    topic = Topic("acme.other.v1", cast("Any", "other"), 1, "something new")

    assert list(messages_on(topic, rich(tmp_path))) == ["record"]


def test_a_webhook_has_the_evidence_of_its_signature(document: dict[str, Any]) -> None:
    assert {SCHEME_HEADER, KEY_ID_HEADER, RECEIVED_AT_HEADER} <= required(document, "webhook")


def test_webhooks_stand_on_the_topic_of_their_lane_with_what_is_fixed_of_them(document: dict[str, Any]) -> None:
    bulk = document["channels"]["acme.events.bulk.v1"]["messages"]
    standard = document["channels"]["acme.events.standard.v1"]["messages"]

    assert (set(bulk), set(standard)) == ({"event", "webhook.github"}, {"event", "webhook.orders"})
    assert bulk["webhook.github"]["headers"]["properties"] == {"ce_source": {"const": "github"}}
    assert standard["webhook.orders"]["headers"]["properties"] == {
        "ce_source": {"const": "shop/orders"},
        "ce_type": {"const": "com.example.order"},
    }


def test_results_stand_on_the_topic_of_their_route_beside_the_markers(document: dict[str, Any]) -> None:
    own = document["channels"]["acme.triage.v1"]["messages"]
    common = document["channels"]["acme.results.v1"]["messages"]

    markers = {"dead-letter-marker", "expired-marker", "duplicate-marker"}
    assert set(own) == {"result.triage", *markers}
    assert set(common) == {"result.rest", *markers}
    # Nobody is told of a repetition while the outcome is to come.
    copies = document["channels"]["acme.replies.v1"]["messages"]
    assert set(copies) == {"result.triage", "result.rest", "dead-letter-marker", "expired-marker"}


@pytest.mark.parametrize(
    ("output", "fits"), [({"labels": ["bug"]}, True), ({"labels": ["b"]}, False), ({}, False), ("text", False)]
)
def test_a_result_fits_when_its_output_fits_the_schema_of_the_route(
    document: dict[str, Any], output: Any, fits: bool
) -> None:
    payload = document["channels"]["acme.triage.v1"]["messages"]["result.triage"]["payload"]

    assert is_valid(document, payload, result(output)) is fits


def test_a_route_without_a_schema_answers_text(document: dict[str, Any]) -> None:
    payload = document["channels"]["acme.results.v1"]["messages"]["result.rest"]["payload"]

    assert is_valid(document, payload, result("text"))
    assert not is_valid(document, payload, result({"labels": ["bug"]}))


def test_brokers_stand_there_with_how_they_are_reached_and_without_secrets(document: dict[str, Any]) -> None:
    assert document["servers"]["kafka-2"] == {
        "host": "two.example:9093",
        "protocol": "kafka-secure",
        "security": [{"$ref": "#/components/securitySchemes/sasl"}],
    }
    assert document["components"]["securitySchemes"] == {"sasl": {"type": "scramSha512"}}
    assert "KAFKA_PASSWORD" not in str(document)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_command_prints_the_document_of_the_given_file(tmp_path: Path, form: str) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(RICH)

    printed = CliRunner().invoke(cli, ["config", "asyncapi", "--config", str(file), "--format", form])

    assert yaml.safe_load(printed.output) == json.loads(json.dumps(asyncapi(rich(tmp_path))))


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        (
            (
                "sasl_mechanism: OAUTHBEARER\n"
                "  oauth: {token_url: https://x/t, client_id: me, client_secret: env:S, scope: a b}"
            ),
            {
                "type": "oauth2",
                "flows": {"clientCredentials": {"tokenUrl": "https://x/t", "availableScopes": {"a": "", "b": ""}}},
            },
        ),
        (
            "sasl_mechanism: AWS_MSK_IAM\n  aws_region: eu-central-1",
            {
                "type": "http",
                "scheme": "bearer",
                "description": "SASL OAUTHBEARER with a token that is signed with credentials of AWS, for Amazon MSK",
            },
        ),
    ],
)
def test_a_token_in_place_of_a_password_stands_there(text: str, scheme: dict[str, Any]) -> None:
    document = parse(f"version: 1\nkafka:\n  security_protocol: SASL_SSL\n  {text}\n", "penstock.yaml")

    assert asyncapi(build(document, {}, Path()))["components"]["securitySchemes"] == {"sasl": scheme}
