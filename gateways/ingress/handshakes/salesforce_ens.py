"""Registration of a callback at Salesforce Marketing Cloud: its one-time key is kept for the operator.

The key is posted unsigned, before there is a secret; so nothing is done with it but appending it to a file of the
operator's choice, which is bounded. The log says that it came, and never what it is.
Blocking: a request of this form appends one line to the file.
Source: Marketing Cloud REST API, "Verify callback": to be completed within four hours (checked 2026-11).
"""

import os
import re
from datetime import datetime
from pathlib import Path

import msgspec

from contracts.envelope import format_time
from contracts.errors import Busy, InvalidPayload
from contracts.logs import logger
from contracts.settings.handshakes import EnsHandshake
from gateways.ingress.handshakes.base import MAX_BODY_BYTES, HandshakeAnswer, HandshakeRequest, document

SIGNATURE_HEADER = b"x-sfmc-ens-signature"
MAX_LINES = 16
_MEMBERS = frozenset({"callbackId", "verificationKey"})
_CALLBACK_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_KEY = re.compile(r"[A-Za-z0-9_=+/.-]{1,512}")

_log = logger("gateway")


class EnsRegistration:
    """The handshake of one source.

    Args:
        name: of the source.
        settings: its section.
    """

    method = "POST"

    def __init__(self, name: str, settings: EnsHandshake) -> None:
        self._name = name
        self._file = settings.file

    def answer(self, request: HandshakeRequest, now: datetime) -> HandshakeAnswer | None:
        """Keep the key and return an empty answer; None for anything that is not exactly a registration."""
        is_signed = any(name == SIGNATURE_HEADER for name, _ in request.headers)
        if is_signed or len(request.body) > MAX_BODY_BYTES or b"verificationKey" not in request.body:
            return None
        found = document(request.body)
        if found.keys() != _MEMBERS:
            return None
        callback_id, key = str(found["callbackId"]), str(found["verificationKey"])
        if not _CALLBACK_ID.fullmatch(callback_id) or not _KEY.fullmatch(key):
            message = "callbackId or verificationKey is not one of Marketing Cloud's"
            raise InvalidPayload(message)
        self._keep({"callbackId": callback_id, "verificationKey": key, "received_at": format_time(now)}, callback_id)
        return HandshakeAnswer("salesforce_ens")

    def _keep(self, line: dict[str, str], callback_id: str) -> None:
        try:
            if self._file.exists() and self._file.read_bytes().count(b"\n") >= MAX_LINES:
                _log.error(
                    "ens.registration_not_kept", source=self._name, path=str(self._file), error="16 wait already"
                )
                message = "too many registrations wait to be completed"
                raise Busy(message)
            _append(self._file, msgspec.json.encode(line) + b"\n")
        except OSError as error:
            _log.error("ens.registration_not_kept", source=self._name, path=str(self._file), error=error.strerror)
            message = "the registration could not be kept"
            raise Busy(message) from error
        _log.warning(
            "ens.registration_waits",
            source=self._name,
            callback_id=callback_id,
            path=str(self._file),
            next_step="POST /platform/v1/ens-verify with callbackId and verificationKey of the file, within 4 hours; "
            "then delete the file and handshakes.salesforce_ens",
        )


def _append(file: Path, line: bytes) -> None:
    # A link that somebody put there is not followed.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
