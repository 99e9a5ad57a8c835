"""Translates the one `kafka` section for librdkafka and for Faust with aiokafka, and reads headers without harm.

Blocking: reads the certificate files and secrets that the section names. A test holds the two translations together.
Source: librdkafka CONFIGURATION.md (2.16), faust 0.15.3 `faust/auth.py` (checked 2026-11).
"""

import re
import ssl
from collections.abc import Callable
from operator import methodcaller
from typing import Any

from contracts.codec import RecordHeaders
from contracts.errors import ConfigError, LogUnavailable
from contracts.settings import KafkaSettings, OAuthSettings, SecretRef

# What a broker allows for a member's session: its settings, and their defaults.
SESSION_LIMITS_MS = {"group.min.session.timeout.ms": 6_000, "group.max.session.timeout.ms": 1_800_000}
# Not `message.headers()`: of a name that is not UTF-8 confluent-kafka 2.16 returns half a list and sets an exception.
# Called from C that is a SystemError; the interpreter's own fast call does not look, and the process dies (SIGSEGV).
_headers = methodcaller("headers")
# How often a client looks at itself. Twice without a broker is no accident: finding them again takes no time at all.
_LOOK_EVERY_MS = 5_000
_SOURCE = re.compile(r'"source":"(\w+)"')


def librdkafka_config(kafka: KafkaSettings) -> dict[str, str]:
    """Return the connection settings of a confluent-kafka client that can be written down.

    A client is made with `producers.kafka_client.client_config`, which adds what signs the tokens of AWS_MSK_IAM.

    Raises:
        ConfigError: a secret is not set, or SASL is chosen and incomplete.
    """
    config = {"bootstrap.servers": ",".join(kafka.bootstrap_servers), "security.protocol": kafka.security_protocol}
    if kafka.is_sasl and kafka.has_token:
        config["sasl.mechanism"] = "OAUTHBEARER"
        config |= _oidc(oauth_of(kafka)) if kafka.sasl_mechanism == "OAUTHBEARER" else {}
    elif kafka.is_sasl:
        mechanism, username, password = _credentials(kafka)
        config |= {"sasl.mechanism": mechanism, "sasl.username": username, "sasl.password": password}
    if _is_tls(kafka):
        files = {
            "ssl.ca.location": kafka.ssl_ca_file,
            "ssl.certificate.location": kafka.ssl_certificate_file,
            "ssl.key.location": kafka.ssl_key_file,
        }
        config |= {name: str(path) for name, path in files.items() if path is not None}
    return config


def reading_nearby(kafka: KafkaSettings) -> dict[str, str]:
    """Return settings with which a consumer reads from a replica in its own zone, where `client_rack` says which.

    Not for a consumer that takes the end of a partition for the end of what was confirmed: a follower learns how far
    that is a moment after its leader (KIP-392).
    """
    return {"client.rack": kafka.client_rack} if kafka.client_rack else {}


def oauth_of(kafka: KafkaSettings) -> OAuthSettings:
    """Return where tokens come from.

    Raises:
        ConfigError: nothing says it.
    """
    if kafka.oauth is None:
        message = "kafka: sasl_mechanism OAUTHBEARER needs the section oauth"
        raise ConfigError(message)
    return kafka.oauth


def oauth_secret(oauth: OAuthSettings) -> str:
    """Return the secret for the token endpoint.

    Raises:
        ConfigError: it is not set, or not UTF-8.
    """
    return _text(oauth.client_secret, "kafka.oauth.client_secret")


def _oidc(oauth: OAuthSettings) -> dict[str, str]:
    """Return what librdkafka's own client of token endpoints needs (KIP-768)."""
    named = {
        "sasl.oauthbearer.scope": oauth.scope,
        "sasl.oauthbearer.extensions": ",".join(f"{name}={value}" for name, value in oauth.extensions.items()),
        "https.ca.location": oauth.ca_file and str(oauth.ca_file),
    }
    return {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": oauth.token_url,
        "sasl.oauthbearer.client.id": oauth.client_id,
        "sasl.oauthbearer.client.secret": oauth_secret(oauth),
    } | {name: value for name, value in named.items() if value}


def self_watching() -> dict[str, Any]:
    """Return settings with which a client's `poll` and `consume` raise once it can never do anything again.

    For a client that lives long and is polled all the time; its owner makes another one. An answer that names topics
    and no brokers, as one gives that is the last to stop, can make librdkafka 2.13 to 2.16 forget all it knew, and not
    look for any (its issue 5301). It says nothing then: only its statistics show it.

    Raises (`poll` and `consume`):
        LogUnavailable: the client knows no brokers, for 5 s and more.
    """
    return {"statistics.interval.ms": _LOOK_EVERY_MS, "stats_cb": _twice_without()}


def _twice_without() -> Callable[[str], None]:
    # Several clients may be made with the same settings.
    without: set[str] = set()

    def look(statistics: str) -> None:
        name = statistics.partition('"client_id":')[0]
        if _has_brokers(statistics):
            without.discard(name)
        elif name not in without:
            without.add(name)
        else:
            without.discard(name)
            message = "the Kafka client has lost all its brokers and does not look for any; it is made anew"
            raise LogUnavailable(message)

    return look


def _has_brokers(statistics: str) -> bool:
    """Tell whether there is one to connect to; also where the statistics are not what they are in 2.16."""
    brokers = statistics.partition('"brokers":')[2].partition('"topics":')[0]
    kinds = set(_SOURCE.findall(brokers))
    # A coordinator is known by its role alone: it stays, and leads nowhere.
    return bool(kinds - {"logical"}) if kinds else bool(brokers.strip("{}, ")) or not brokers


def faust_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the same for Faust as plain values, so that nothing here imports Faust.

    Keys: `broker` (list of URLs), `security_protocol`, `ssl_context` (None without TLS), and `sasl_mechanism`,
    `sasl_username`, `sasl_password` (None without SASL). With a token, the mechanism is OAUTHBEARER and both others
    are None.

    Raises:
        ConfigError: a secret is not set, SASL is chosen and incomplete, or a certificate file is not usable.
    """
    mechanism, username, password = None, None, None
    if kafka.is_sasl:
        mechanism, username, password = ("OAUTHBEARER", None, None) if kafka.has_token else _credentials(kafka)
    return {
        "broker": [f"kafka://{server}" for server in kafka.bootstrap_servers],
        "security_protocol": kafka.security_protocol,
        "ssl_context": _ssl_context(kafka) if _is_tls(kafka) else None,
        "sasl_mechanism": mechanism,
        "sasl_username": username,
        "sasl_password": password,
    }


def headers_of(message: object, unreadable: RecordHeaders = ()) -> list[tuple[str, bytes | None]]:
    """Return the headers of confluent-kafka's message in order, repeated ones included.

    Args:
        message: a record, not an error.
        unreadable: returned where one of the names is not UTF-8; by default nothing, since nobody of ours writes such
            names: the record is passed over, not met for ever.
    """
    try:
        headers = _headers(message) or []
    except SystemError:
        return list(unreadable)
    pairs = headers.items() if isinstance(headers, dict) else headers
    # Written out: of every header of every record.
    return [(name, raw.encode() if isinstance(raw, str) else raw) for name, raw in pairs]


def bytes_of(raw: str | bytes | None) -> bytes | None:
    """Return a key or a value, which confluent-kafka's types allow to be text, as bytes."""
    return raw.encode() if isinstance(raw, str) else raw


def _is_tls(kafka: KafkaSettings) -> bool:
    return kafka.security_protocol.endswith("SSL")


def _credentials(kafka: KafkaSettings) -> tuple[str, str, str]:
    if not (kafka.sasl_mechanism and kafka.sasl_username and kafka.sasl_password):
        message = (
            f"kafka: security_protocol {kafka.security_protocol} needs sasl_mechanism, sasl_username and sasl_password"
        )
        raise ConfigError(message)
    return kafka.sasl_mechanism, kafka.sasl_username, _text(kafka.sasl_password, "kafka.sasl_password")


def _text(secret: SecretRef, key: str) -> str:
    try:
        return secret.resolve().decode()
    except UnicodeDecodeError as error:
        message = f"{key} is not UTF-8"
        raise ConfigError(message) from error


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_ca_file)
        if kafka.ssl_certificate_file is not None:
            context.load_cert_chain(kafka.ssl_certificate_file, kafka.ssl_key_file)
    except (OSError, ssl.SSLError) as error:
        message = f"kafka: the ssl_*_file certificates cannot be used: {error}"
        raise ConfigError(message) from error
    return context
