"""What is said about a value of the wrong form is said in words, and never in those of the validating library."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from contracts.settings import Settings, build, parse
from contracts.settings.marks import Document

# Beginnings and marks of pydantic's own texts.
FOREIGN = re.compile(
    r"(Input|String|Tuple|List|Value|Keys?|Data|Dictionary) should|<class|pydantic|Input is|constrained"
)
JUNK: tuple[Any, ...] = ("?? 5m", 7, -1, 1e12, True, [], ["?"], [7], {"?": "?"}, {7: 7}, None, "", "x" * 5000)
SCHEMA = Settings.model_json_schema()
SOURCE = "sources:\n  shop:\n    scheme: github\n    type: t\n    secrets:\n      - id: a\n        value: env:A\n"
ROUTE = "routes:\n  - name: a\n    prompt: {user: x}\n    model: m\n"


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build(parse(f"version: 1\n{text}", "p.yaml"), {}, Path())
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "kafka: {bootstrap_servers: localhost}",
            "kafka.bootstrap_servers: must be host:port, such as localhost:9092; found 'localhost'",
        ),
        (
            "kafka: {bootstrap_servers: 'http://kafka:9092'}",
            "kafka.bootstrap_servers: must be host:port, such as localhost:9092; found 'http://kafka:9092'",
        ),
        (
            "kafka: {bootstrap_servers: [a:1, kafka:90920]}",
            (
                "kafka.bootstrap_servers[1]: must be host:port, such as localhost:9092, the port 65535 at most; "
                "found 'kafka:90920'"
            ),
        ),
        (
            "kafka: {topic_prefix: my topics}",
            (
                "kafka.topic_prefix: must be letters, digits, dashes and underscores, at most 64, the first a letter "
                "or digit; found 'my topics'"
            ),
        ),
        (
            ROUTE + "    output_topic: a b",
            (
                "routes[0].output_topic: must be a topic's name: letters, digits, dots, dashes and underscores, at "
                "most 249; found 'a b'"
            ),
        ),
        (
            ROUTE + "    deadline_s: 5 min",
            "routes[0].deadline_s: must be a number of seconds, such as 300; found '5 min'",
        ),
        (
            "producer: {max_buffer_bytes: 64MB}",
            "producer.max_buffer_bytes: must be a whole number of bytes, such as 1048576; found '64MB'",
        ),
        ("producer: {delivery_timeout_s: 0}", "producer.delivery_timeout_s: must be more than 0; found 0"),
        # More than librdkafka takes; it must not be longer than the time between two polls.
        (
            "egress_process: {session_timeout_s: 301}",
            "egress_process.session_timeout_s: must be 300 or less; found 301",
        ),
        ("egress_process: {session_timeout_s: 0.5}", "egress_process.session_timeout_s: must be 1 or more; found 0.5"),
        (
            "producer: {max_record_bytes: 1000000000}",
            "producer.max_record_bytes: must be 536870912 or less; found 1000000000",
        ),
        ("worker: {max_in_flight: 0}", "worker.max_in_flight: must be 1 or more; found 0"),
        (
            "gateway: {host: ''}",
            "gateway.host: must be an address or a host name to listen on, such as 127.0.0.1; found ''",
        ),
        (
            "worker: {health_host: ' '}",
            "worker.health_host: must be an address or a host name to listen on, such as 127.0.0.1; found ' '",
        ),
        ("gateway: {port: 99999}", "gateway.port: must be 65535 or less; found 99999"),
        ("kafka: {bootstrap_servers: []}", "kafka.bootstrap_servers: must have 1 or more entries"),
        ("kafka: {embedded: maybe}", "kafka.embedded: must be true or false; found 'maybe'"),
        (
            "kafka: {sasl_username: 5}",
            "kafka.sasl_username: must be text; numbers, dates, true and false count as text in quotes only; found 5",
        ),
        (
            "logging: {level: warn}",
            "logging.level: must be 'debug', 'info', 'warning' or 'error' (did you mean 'warning'?); found 'warn'",
        ),
        (
            ROUTE + "    order: keys",
            (
                "routes[0].order: must be 'key', 'partition' or 'none' (did you mean 'key'?), or a JSON pointer, such "
                "as /account/id; found 'keys'"
            ),
        ),
        (
            SOURCE + "        not_after: 2026-12-31",
            (
                "sources.shop.secrets[0].not_after: must be a time with its zone, such as 2026-12-31T23:59:59Z; found "
                "2026-12-31"
            ),
        ),
        (
            "providers: {p: {kind: openai, base_url: 'ftp://me:hunter2@host'}}",
            "providers.p.base_url: must be a URL that begins with http:// or https://; found 'ftp://***@host'",
        ),
        (
            "providers: {p: {kind: openai, base_url: 'http://[::1/v1'}}",
            (
                "providers.p.base_url: must be a URL with a host, and with a port of 1 to 65535 if any, such as "
                "http://127.0.0.1:8000; found 'http://[::1/v1'"
            ),
        ),
        (
            "batch_jobs: {s3_endpoint_url: 'http://minio:90000'}",
            (
                "batch_jobs.s3_endpoint_url: must be a URL with a host, and with a port of 1 to 65535 if any, such as "
                "http://127.0.0.1:8000; found 'http://minio:90000'"
            ),
        ),
        (
            "secrets_manager: {endpoint_url: 'http://a..b'}",
            (
                "secrets_manager.endpoint_url: must be a URL with a host, and with a port of 1 to 65535 if any, such "
                "as http://127.0.0.1:8000; found 'http://a..b'"
            ),
        ),
        (
            "egress_process: {instance_id: a b}",
            (
                "egress_process.instance_id: must be letters, digits, dots, dashes and "
                "underscores, at most 200; found 'a b'"
            ),
        ),
    ],
)
def test_what_is_expected_is_said_in_words(text: str, said: str) -> None:
    assert complaint(text).splitlines()[0].partition(": ")[2] == said


def test_every_item_of_a_text_of_brokers_that_is_wrong_is_told() -> None:
    lines = complaint("kafka: {bootstrap_servers: 'a, b:1, c'}").splitlines()

    assert [line.rpartition("; ")[2] for line in lines] == ["found 'a'", "found 'c'"]


def test_the_id_of_a_secret_is_not_repeated() -> None:
    text = SOURCE.replace("id: a", "id: Hunter2 Hunter2")

    assert "Hunter2" not in complaint(text)


def resolved(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a place may hold: its schema, or those of a union's members."""
    if "$ref" in schema:
        yield from resolved(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    elif options := schema.get("anyOf") or schema.get("oneOf"):
        for option in options:
            yield from resolved(option)
    else:
        yield schema


def places(schema: dict[str, Any], wrap: Any) -> Iterator[Any]:
    """Yield, for every setting, a function that puts a value there into an otherwise minimal document."""
    yield wrap
    for one in resolved(schema):
        fixed = {name: part["const"] for name, part in one.get("properties", {}).items() if "const" in part}
        for name, part in one.get("properties", {}).items():
            yield from places(part, lambda value, name=name, fixed=fixed, wrap=wrap: wrap({**fixed, name: value}))
        if isinstance(items := one.get("items"), dict):
            yield from places(items, lambda value, wrap=wrap: wrap([value]))
        if isinstance(values := one.get("additionalProperties"), dict):
            yield from places(values, lambda value, wrap=wrap: wrap({"a": value}))


# Python's own ipaddress warns of a network that is `true`.
@pytest.mark.filterwarnings("ignore:__int__ returned non-int:DeprecationWarning")
def test_no_setting_answers_junk_in_words_of_the_library() -> None:
    said = set()
    for place in places(SCHEMA, lambda value: value):
        for junk in JUNK:
            document = place(junk)
            if not isinstance(document, dict):
                continue
            try:
                build(Document("p.yaml", {"version": 1, **document}), {}, Path())
            except ConfigError as error:
                said |= {line.partition(": ")[2] for line in str(error).splitlines()}

    assert len(said) > 1000
    assert not sorted(line for line in said if FOREIGN.search(line))
