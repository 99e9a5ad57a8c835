"""A receiver of Penstock's callbacks: verifies, remembers ids, answers at once. Stdlib but for the two checks.

    CALLBACK_KEYS="whsec_..." python receiver.py 9000

CALLBACK_KEYS: one key or several, separated by spaces; `whsec_` secrets (v1) and `whpk_` public keys (v1a).
"""

import base64
import contextlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE_S = 300
MAX_BODY_BYTES = 2_000_000
MAX_LENGTH_DIGITS = 9


def is_genuine(keys: list[str], headers: dict[str, str], body: bytes) -> bool:
    """Tell whether one of the keys signed exactly these bytes, within the last minutes."""
    return any(_verifies(key, headers, body) for key in keys)


def is_key(key: str) -> bool:
    """Tell whether a key can verify anything at all."""
    try:
        if key.startswith("whpk_"):
            Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_"), validate=True))
            return True
        return key.startswith("whsec_") and bool(base64.b64decode(key.removeprefix("whsec_"), validate=True))
    except ValueError:
        return False


def _verifies(key: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        if key.startswith("whsec_"):
            standardwebhooks.Webhook(key).verify(body, headers)
            return True
        return _verifies_v1a(key, headers, body)
    # What a stranger sends makes verifiers raise all kinds of errors; none of them is a yes.
    except Exception:  # noqa: BLE001
        return False


def _verifies_v1a(key: str, headers: dict[str, str], body: bytes) -> bool:
    stamp = headers["webhook-timestamp"]
    if abs(time.time() - int(stamp)) > TOLERANCE_S:
        return False
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    for entry in headers["webhook-signature"].split(" "):
        version, _, signature = entry.partition(",")
        if version == "v1a":
            try:
                public.verify(base64.b64decode(signature), signed)
            except InvalidSignature:
                continue
            return True
    return False


class Receiver(BaseHTTPRequestHandler):
    """Takes callbacks."""

    protocol_version = "HTTP/1.1"
    keys: ClassVar[list[str]] = os.environ.get("CALLBACK_KEYS", "").split()
    # In your own service: a unique column of the table that the result goes into, in the same transaction.
    seen: ClassVar[set[str]] = set()
    # Callbacks come on several connections at a time.
    taking: ClassVar[threading.Lock] = threading.Lock()

    def do_POST(self) -> None:
        """Verify first, then look; a repeat is answered like the first."""
        given = self.headers.get("content-length", "")
        is_number = given.isascii() and given.isdecimal()
        if not is_number or len(given) > MAX_LENGTH_DIGITS or int(given) > MAX_BODY_BYTES:
            # Its body is not read: what comes next on this connection is no request.
            self.close_connection = True
            self._answer(413 if is_number else 411)
            return
        length = int(given)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not is_genuine(self.keys, headers, body):
            self._answer(401)
            return
        with self.taking:
            if headers["webhook-id"] not in self.seen:
                self._take(json.loads(body))
                self.seen.add(headers["webhook-id"])
        self._answer(204)

    def _take(self, event: dict[str, object]) -> None:
        print(event["type"], event["eventsource"], event["eventid"], json.dumps(event["data"]), flush=True)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing but what was taken."""


def main() -> None:
    """Receive until Ctrl-C; what is wrong with the command or its surroundings is said in one line."""
    text = sys.argv[1] if len(sys.argv) > 1 else "9000"
    if not Receiver.keys:
        sys.exit("CALLBACK_KEYS is not set: without a key, every callback would be refused")
    if wrong := [key[:8] for key in Receiver.keys if not is_key(key)]:
        sys.exit(f"CALLBACK_KEYS: no key that can be used: {', '.join(wrong)}...; expected whsec_ or whpk_ and base64")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(text)), Receiver)
    except (ValueError, OverflowError):
        sys.exit(f"{text}: expected a port, 0 to 65535")
    except OSError as error:
        sys.exit(f"port {text}: {error.strerror}")
    print(f"receiving on port {server.server_port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
