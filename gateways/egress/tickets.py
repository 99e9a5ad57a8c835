"""Result tickets: signed claims that let whoever got a 202 ask for its result, and say where to look for it.

Source: itsdangerous 2.2, URLSafeSerializer; the signature is checked before anything else is read. Issuing writes the
same form in place, at a fifth of the library's CPU: it runs once per accepted request.
"""

import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from itsdangerous import BadData, URLSafeSerializer

from contracts.codec import Position
from contracts.envelope import result_id
from contracts.errors import ConfigError, UnknownResult
from contracts.logs import logger
from contracts.settings import SecretRef
from gateways.egress.outcomes import event_name

MIN_SECRET_BYTES = 32
# A ticket is some 200 characters for usual ids. A source and an id of 256 rare characters each, and the longest topic,
# make 2,300.
_MAX_CHARS = 3072
_SALT = b"penstock.result-ticket.v1"
_FIELDS = 7
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_LONG_BYTES = 600

_log = logger("gateway")


class Ticket(NamedTuple):
    """Which event, where its record lies, and whose it is: the API key's id, empty for webhooks."""

    source: str
    id: str
    position: Position
    owner: str = ""

    @property
    def name(self) -> str:
        """Return by what the event is known."""
        return event_name(result_id(self.source, self.id), self.owner)


class Tickets:
    """Issues and reads tickets.

    Args:
        secret: key of the signature; a random one, lost with the process, when None.
        former: further keys, whose tickets are read.

    Raises:
        ConfigError: a secret is missing or too short.
    """

    def __init__(self, secret: SecretRef | None, former: Sequence[SecretRef] = ()) -> None:
        key = _made_up() if secret is None else _resolve(secret, "ticket_secret")
        others = [_resolve(one, f"former_ticket_secrets[{index}]") for index, one in enumerate(former)]
        # The library signs with the last one, and reads what any has signed.
        self._serializer = URLSafeSerializer(
            [*others, key], salt=_SALT, signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )
        self._signing_key = hmac.digest(key, _SALT, "sha256")

    def issue(self, source: str, event_id: str, position: Position, owner: str = "") -> str:
        """Return the ticket of an accepted event."""
        plain = msgspec.json.encode([source, event_id, *position, owner])
        if len(plain) > _LONG_BYTES:
            # The library compresses, so that the longest ids still fit.
            return self._serializer.dumps([source, event_id, *position, owner])
        payload = _url_safe(plain)
        return (payload + b"." + _url_safe(hmac.digest(self._signing_key, payload, "sha256"))).decode()

    def read(self, text: str) -> Ticket:
        """Return what a ticket says.

        Raises:
            UnknownResult: forged, made with another key, or not a ticket.
        """
        message = "no such result"
        if len(text) > _MAX_CHARS:
            raise UnknownResult(message)
        try:
            fields = self._serializer.loads(text)
        except BadData as error:
            raise UnknownResult(message) from error
        if not isinstance(fields, list) or len(fields) != _FIELDS:
            raise UnknownResult(message)
        source, event_id, *position, owner = fields
        return Ticket(source, event_id, Position(*position), owner)


def _url_safe(raw: bytes) -> bytes:
    # base64.urlsafe_b64encode, whose own calls cost more than its work.
    return binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _made_up() -> bytes:
    _log.warning(
        "tickets.key_is_random",
        consequence="poll URLs work on this instance only, and not after a restart: set gateway.ticket_secret",
    )
    return secrets.token_bytes(MIN_SECRET_BYTES)


def _resolve(secret: SecretRef, setting: str) -> bytes:
    try:
        key = secret.resolve()
    except ConfigError as error:
        message = f"gateway.{setting}: {error}"
        raise ConfigError(message) from error
    if len(key) < MIN_SECRET_BYTES:
        message = f"gateway.{setting}: has {len(key)} bytes, needs {MIN_SECRET_BYTES} or more"
        raise ConfigError(message)
    return key
