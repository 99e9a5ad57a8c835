#!/usr/bin/env python3
"""The page's own server: serves three files, and puts what is asked on Penstock with the key that no browser sees.

Run it beside `penstock gateway`; README.md says how. Blocking: serves until Ctrl-C.
"""

import argparse
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
# The page says so before it sends: page.js has the same number.
MAX_BODY_BYTES = 100_000
MAX_LENGTH_DIGITS = 9
MAX_PORT = 65_535
TIMEOUT_S = 10.0


class Handler(BaseHTTPRequestHandler):
    """Answers one request.

    Args:
        gateway: base URL of the gateway, as browsers reach it.
        api_key: of this application.
    """

    def __init__(self, *args: object, gateway: str, api_key: str) -> None:
        self.gateway = gateway
        self.api_key = api_key
        super().__init__(*args)  # type: ignore[arg-type]  # the server's three

    def do_GET(self) -> None:
        """Serve a file of the page."""
        name, kind = FILES.get(self.path, ("", ""))
        if not name:
            self._send(404, "text/plain", b"not found")
            return
        self._send(200, f"{kind}; charset=utf-8", (PAGE / name).read_bytes())

    def do_POST(self) -> None:
        """Put a text on Penstock, and say where its answer can be watched."""
        # Says where the page is from that asks: any other page in this browser could spend on our key.
        if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            self._json(403, {"message": "only this page may ask"})
            return
        given = self.headers.get("Content-Length") or ""
        length = int(given) if given.isascii() and given.isdecimal() and len(given) <= MAX_LENGTH_DIGITS else 0
        if self.path != "/ask" or not 0 < length <= MAX_BODY_BYTES:
            self._json(400, {"message": "send some text, at most 100 kB"})
            return
        body = json.dumps({"text": self.rfile.read(length).decode("utf-8", "replace")}).encode()
        headers = {
            "Authorization": f"Bearer {self.api_key}",
            "Content-Type": "application/json",
            "ce-type": "com.example.text.submitted",
            "ce-id": str(uuid.uuid4()),
            "ce-delivery": "stream",
            "Penstock-Lane": "interactive",
        }
        request = urllib.request.Request(f"{self.gateway}/v1/events", body, headers)  # noqa: S310 - http, from our own options
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
                place = json.load(response)["stream_url"]
        except urllib.error.HTTPError as error:
            with error:
                reason = (
                    json.load(error).get("reason", "") if error.headers.get_content_subtype() == "problem+json" else ""
                )
            self._json(502, {"message": f"the gateway answered {error.code} {reason}".strip()})
        except (OSError, ValueError, KeyError):
            self._json(502, {"message": "the gateway does not answer"})
        else:
            self._json(200, {"stream_url": place if "://" in place else self.gateway + place})

    def _json(self, status: int, body: dict[str, str]) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        # Nothing is sent as a form: without scripts the text would end up in the address.
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
            f"connect-src 'self' {self.gateway}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
        )
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing for each request."""


def main(args: list[str] | None = None) -> None:
    """Serve until Ctrl-C; what is wrong with the command or its surroundings is said in one line."""
    parser = argparse.ArgumentParser(description="Serve the page that shows answers grow.")
    parser.add_argument("--port", type=port, default=8000, help="port of the page, 0 = any free one")
    parser.add_argument(
        "--gateway", type=url, default="http://127.0.0.1:8080", help="URL of the gateway, as browsers reach it"
    )
    options = parser.parse_args(args)
    api_key = os.environ.get("PENSTOCK_API_KEY", "")
    if not (api_key.isascii() and api_key.isprintable() and api_key):
        parser.error("PENSTOCK_API_KEY is not set, or no plain text: it is the same key that the gateway has")
    handler = partial(Handler, gateway=options.gateway, api_key=api_key)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), handler)
    except OSError as error:
        parser.error(f"port {options.port}: {error.strerror}; choose another one with --port, 0 takes any free one")
    with server:
        print(f"page on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


def port(text: str) -> int:
    """Return a port; a type of argparse."""
    number = int(text)
    if not 0 <= number <= MAX_PORT:
        message = f"{text}: expected 0 to {MAX_PORT}"
        raise argparse.ArgumentTypeError(message)
    return number


def url(text: str) -> str:
    """Return the base URL of a server; a type of argparse."""
    found = urllib.parse.urlsplit(text)
    # It also goes into a header, whose parts spaces, commas and semicolons separate.
    if found.scheme not in {"http", "https"} or not found.hostname or found.port == 0 or re.search(r"[\s;,]", text):
        message = f"{text!r}: expected http://HOST:PORT"
        raise argparse.ArgumentTypeError(message)
    return text.rstrip("/")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(0) from None
