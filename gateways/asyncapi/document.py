"""Generates the AsyncAPI 3.0 document of a configuration from the table of topics and the payload types.

Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0 (checked 2026-11).
"""

from typing import Any

from contracts.settings import KafkaSettings, Settings
from contracts.topics import Topic, Topics
from gateways.asyncapi.messages import messages_on
from gateways.asyncapi.schemas import schemas
from gateways.openapi import package_version

_BINDING = "0.5.0"
_SASL = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}
_MSK = "SASL OAUTHBEARER with a token that is signed with credentials of AWS, for Amazon MSK"
# What Penstock does with a kind of topic; what is parked is written and read by its own processes.
_ACTIONS = {"events": ("receive",), "retries": ("send", "receive"), "deliveries": ("send", "receive")}


def asyncapi(settings: Settings) -> dict[str, Any]:
    """Return the document: what lies on which topic, seen from Penstock.

    Raises:
        ConfigError: a route's schema file cannot be read.
    """
    outputs = frozenset(route.output_topic for route in settings.routes if route.output_topic)
    topics = Topics(settings.kafka.topic_prefix).table(outputs, has_doors=bool(settings.egress))
    security = _security(settings.kafka)
    components = {"schemas": schemas(settings)} | ({"securitySchemes": security} if security else {})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Penstock",
            "version": package_version(),
            "description": "Events in, results of foundation models out. CloudEvents 1.0, Kafka binding, binary mode.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(settings.kafka, list(security)),
        "channels": {topic.name: _channel(topic, settings) for topic in topics},
        "operations": {name: operation for topic in topics for name, operation in _operations(topic)},
        "components": components,
    }


def _servers(kafka: KafkaSettings, security: list[str]) -> dict[str, Any]:
    secure = kafka.security_protocol != "PLAINTEXT"
    shared: dict[str, Any] = {"protocol": "kafka-secure" if secure else "kafka"}
    if security:
        shared["security"] = [{"$ref": f"#/components/securitySchemes/{name}"} for name in security]
    servers = enumerate(kafka.bootstrap_servers, 1)
    return {f"kafka-{number}": {"host": host, **shared} for number, host in servers}


def _security(kafka: KafkaSettings) -> dict[str, Any]:
    if kafka.sasl_mechanism == "AWS_MSK_IAM":
        return {"sasl": {"type": "http", "scheme": "bearer", "description": _MSK}}
    if kafka.oauth is not None:
        scopes = (kafka.oauth.scope or "").split()
        flow = {"tokenUrl": kafka.oauth.token_url, "availableScopes": dict.fromkeys(scopes, "")}
        return {"sasl": {"type": "oauth2", "flows": {"clientCredentials": flow}}}
    if kafka.sasl_mechanism is not None:
        return {"sasl": {"type": _SASL[kafka.sasl_mechanism]}}
    return {"mutualTls": {"type": "X509"}} if kafka.ssl_certificate_file else {}


def _channel(topic: Topic, settings: Settings) -> dict[str, Any]:
    config = topic.config()
    configured: dict[str, Any] = {"cleanup.policy": config["cleanup.policy"].split(",")}
    if "retention.ms" in config:
        configured["retention.ms"] = int(config["retention.ms"])
    kafka = {"topic": topic.name, "topicConfiguration": configured, "bindingVersion": _BINDING}
    return {
        "address": topic.name,
        "description": topic.purpose[0].upper() + topic.purpose[1:] + ".",
        "messages": messages_on(topic, settings),
        "bindings": {"kafka": kafka},
    }


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    channel = {"$ref": "#/channels/" + topic.name}
    return [
        (f"{action}.{topic.name}", {"action": action, "channel": channel})
        for action in _ACTIONS.get(topic.kind, ("send",))
    ]
