"""The Salesforce example without Apex: a relayed change event takes the same route and names its record."""

import importlib
import json

import pytest
import yaml

from contracts.codec import decode_event
from contracts.settings import Settings, build, parse
from contracts.topics import Topics
from streams.steps.prompt import PromptTemplate
from streams.steps.route import Router
from tests.examples.salesforce import CONFIG, FOLDER

pytestmark = pytest.mark.skipif(
    "ingress" not in Settings.model_fields, reason="there is no door for queues in this tree"
)
RELAYED = FOLDER / "sample-relayed-event.json"


def settings() -> Settings:
    """Return the example's configuration with the queue as its door in."""
    document = yaml.safe_load(CONFIG.read_text("utf-8")) | yaml.safe_load(
        (FOLDER / "event-relay.yaml").read_text("utf-8")
    )
    del document["sources"]
    return build(parse(yaml.safe_dump(document), str(CONFIG)), {}, base=FOLDER)


def test_a_relayed_event_takes_the_route_and_names_its_opportunity() -> None:
    found = settings()
    mapping = importlib.import_module("gateways.ingress.mapping")
    base = importlib.import_module("gateways.ingress.base")
    eventbridge = importlib.import_module("gateways.ingress.envelopes.eventbridge")
    door = getattr(found, "ingress")["opportunities"]  # noqa: B009 - not there in every tree
    message = base.Message(id="m-1", body=RELAYED.read_bytes(), headers=[])
    (item,) = eventbridge.unwrap(message)

    record = mapping.Mapping("opportunities", door, Topics()).record(message, item)
    event = decode_event(record.key, record.value, record.headers)

    route = Router(found.routes).route(event)
    assert (route.name, record.key) == ("opportunity-summary", b"006Hs00001Q7d2fIAB")
    assert event.id == json.loads(RELAYED.read_bytes())["id"]
    (prompt,) = PromptTemplate(route.prompt, route.name).render(event)
    assert "Budget holder is the COO" in prompt.content
