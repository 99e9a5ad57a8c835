"""The two translations of the `kafka` section say the same."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from faust.auth import SASLCredentials

from contracts.errors import ConfigError, LogUnavailable
from contracts.kafka_config import faust_config, headers_of, librdkafka_config, reading_nearby, self_watching
from contracts.settings import KafkaSettings, OAuthSettings, SecretRef

SASL = {
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "penstock",
    "sasl_password": SecretRef("env:KAFKA_PASSWORD"),
}


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, Path]:
    """Return PEM files of a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), start, start.replace(2046)
    )
    pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    names = {"ssl_ca_file": "ca.pem", "ssl_certificate_file": "cert.pem", "ssl_key_file": "key.pem"}
    paths = {field: tmp_path / name for field, name in names.items()}
    paths["ssl_ca_file"].write_bytes(pem)
    paths["ssl_certificate_file"].write_bytes(pem)
    paths["ssl_key_file"].write_bytes(private)
    return paths


def settings(**fields: Any) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=("a:9092", "b:9093"), **fields)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_both_clients_get_the_same_servers_protocol_and_credentials(
    protocol: str, certificate: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "p@ss: word")
    kafka = settings(security_protocol=protocol, **SASL, **certificate)

    rd, faust = librdkafka_config(kafka), faust_config(kafka)

    assert rd["bootstrap.servers"].split(",") == [url.removeprefix("kafka://") for url in faust["broker"]]
    assert rd["security.protocol"] == faust["security_protocol"] == protocol
    for of_rd, of_faust in (
        ("sasl.mechanism", "sasl_mechanism"),
        ("sasl.username", "sasl_username"),
        ("sasl.password", "sasl_password"),
    ):
        assert rd.get(of_rd) == faust[of_faust]
    assert (faust["sasl_password"] == "p@ss: word") == protocol.startswith("SASL")
    assert ("ssl.ca.location" in rd) == isinstance(faust["ssl_context"], ssl.SSLContext) == protocol.endswith("SSL")


@pytest.mark.parametrize("protocol", ["SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_both_libraries_accept_the_translation(
    protocol: str, certificate: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "word")
    kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:1",), security_protocol=protocol, **SASL, **certificate)
    faust = faust_config(kafka)

    Producer({**librdkafka_config(kafka), "log_level": 0})
    if protocol.startswith("SASL"):
        credentials = SASLCredentials(
            username=faust["sasl_username"],
            password=faust["sasl_password"],
            mechanism=faust["sasl_mechanism"],
            ssl_context=faust["ssl_context"],
        )
        assert credentials.protocol.value == protocol


def test_the_certificate_of_the_broker_is_always_checked(certificate: dict[str, Path]) -> None:
    context = faust_config(settings(security_protocol="SSL", **certificate))["ssl_context"]

    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("missing", ["sasl_mechanism", "sasl_username", "sasl_password"])
@pytest.mark.parametrize("translate", [librdkafka_config, faust_config])
def test_incomplete_sasl_is_refused(translate: Any, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "word")

    with pytest.raises(ConfigError, match=missing):
        translate(settings(security_protocol="SASL_SSL", **{**SASL, missing: None}))


def oauth(**more: Any) -> OAuthSettings:
    return OAuthSettings(
        token_url="https://idp.example/token", client_id="me", client_secret=SecretRef("env:KAFKA_SECRET"), **more
    )


def test_a_token_comes_from_the_endpoint_that_is_named(
    certificate: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_SECRET", "a secret")
    named = oauth(scope="s t", extensions={"logicalCluster": "lkc-1", "a": "b"}, ca_file=certificate["ssl_ca_file"])
    kafka = settings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth=named)
    found = librdkafka_config(kafka)

    assert {name: text for name, text in found.items() if name.startswith(("sasl", "https"))} == {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://idp.example/token",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": "a secret",
        "sasl.oauthbearer.scope": "s t",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,a=b",
        "https.ca.location": str(certificate["ssl_ca_file"]),
    }
    assert "a secret" not in repr(kafka)
    of_faust = faust_config(kafka)
    assert [of_faust[f"sasl_{key}"] for key in ("mechanism", "username", "password")] == ["OAUTHBEARER", None, None]


@pytest.mark.parametrize(("more", "missing"), [({}, "KAFKA_SECRET"), ({"oauth": None}, "needs the section oauth")])
def test_incomplete_oauth_is_refused(more: dict[str, Any], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_SECRET", raising=False)

    with pytest.raises(ConfigError, match=missing):
        librdkafka_config(
            settings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", **{"oauth": oauth(), **more})
        )


def test_only_who_asks_for_it_reads_from_a_replica_nearby() -> None:
    kafka = settings(client_rack="euc1-az1")

    assert reading_nearby(kafka) == {"client.rack": "euc1-az1"}
    assert "client.rack" not in librdkafka_config(kafka)
    assert reading_nearby(settings()) == {}


def test_a_password_that_is_not_set_is_named_and_a_file_that_is_no_certificate_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate", encoding="ascii")

    with pytest.raises(ConfigError, match="KAFKA_PASSWORD"):
        librdkafka_config(settings(security_protocol="SASL_SSL", **SASL))
    with pytest.raises(ConfigError, match="certificates cannot be used"):
        faust_config(settings(security_protocol="SSL", ssl_ca_file=wrong))


class _Message:
    """Stands for confluent-kafka's; a fault is what its method raises."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


UNREADABLE = SystemError("<method 'headers' of 'cimpl.Message' objects> returned a result with an exception set")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("a", b"1"), ("a", b"2"), ("b", None)], [("a", b"1"), ("a", b"2"), ("b", None)]),
        ([("a", "\u00e9")], [("a", b"\xc3\xa9")]),
        ({"a": b"1"}, [("a", b"1")]),
        (None, []),
        ([], []),
    ],
)
def test_headers_are_read_in_order_and_as_bytes(headers: object, found: object) -> None:
    assert headers_of(_Message(headers)) == found


def test_a_record_with_a_header_name_that_is_not_utf_8_is_none_of_ours_and_stops_nobody() -> None:
    assert headers_of(_Message(UNREADABLE)) == []
    assert headers_of(_Message(UNREADABLE), unreadable=[("so", None)]) == [("so", None)]


def statistics(brokers: str, name: str = "a#producer-1") -> str:
    """Return what librdkafka 2.16 says of itself, cut to what is looked at."""
    return f'{{ "name": "{name}", "client_id": "a", "brokers":{{ {brokers}}}, "topics":{{ }} }}'


LEARNED = '"h:1/1": { "name":"h:1/1", "nodeid":1, "source":"learned", "state":"DOWN" } '
COORDINATOR = '"GroupCoordinator": { "name":"GroupCoordinator", "nodeid":-1, "source":"logical", "state":"DOWN" } '


@pytest.mark.parametrize("none", ["", COORDINATOR])
def test_a_client_that_has_no_brokers_twice_has_lost_them(none: str) -> None:
    look = self_watching()["stats_cb"]
    look(statistics(none))

    with pytest.raises(LogUnavailable, match="has lost all its brokers"):
        look(statistics(none))


@pytest.mark.parametrize("between", [statistics(LEARNED), statistics(COORDINATOR + LEARNED)])
def test_a_client_that_has_found_its_brokers_again_has_not_lost_them(between: str) -> None:
    look = self_watching()["stats_cb"]
    for _ in range(3):
        look(statistics(""))
        look(between)


def test_of_two_clients_made_with_the_same_settings_each_is_looked_at() -> None:
    look = self_watching()["stats_cb"]
    look(statistics("", "a#producer-1"))
    look(statistics("", "a#producer-2"))
    look(statistics(LEARNED, "a#producer-2"))

    with pytest.raises(LogUnavailable):
        look(statistics("", "a#producer-1"))


@pytest.mark.parametrize("other", ["", "{}", '{"brokers":{ "h:1": { "from":"somewhere" } }, "topics":{ } }'])
def test_statistics_of_another_kind_say_nothing(other: str) -> None:
    look = self_watching()["stats_cb"]
    for _ in range(3):
        look(other)
