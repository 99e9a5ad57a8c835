"""A broker that lets in whoever shows a token of the authorization server beside it.

The tokens are JWTs signed with RS256, which the broker's own OIDC validator checks against the server's keys. Blocking:
some seconds to start.
"""

import base64
import http.server
import json
import ssl
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.gateways.egress.certificates import authority, server_tls
from tests.kafkalab.jvm import SHORT_LIVED, JvmBroker
from tests.support import free_port

CLIENT, SECRET, SCOPE = "penstock", "a secret, for tests: {", "kafka.default"
_AUDIENCE = "brokers"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class TokenServer:
    """An authorization server with one client, over TLS; a context manager.

    Args:
        folder: for its certificate and its keys.
        life_s: of a token.

    Attributes:
        ca_file: of the authority of its certificate.
        keys: a file with its keys, as a JWK set.
        given: tokens it has given.
        refusal: status and body in place of a token; None = it gives one.
    """

    def __init__(self, folder: Path, life_s: float) -> None:
        self._life_s = life_s
        self._key = rsa.generate_private_key(65537, 2048)
        self.given, self.asked = 0, 0
        self.refusal: tuple[int, bytes] | None = None
        self.ca_file, issuer, issuer_key = authority(folder)
        self.keys = folder / "keys.json"
        self.keys.write_text(json.dumps({"keys": [self._public()]}), encoding="utf-8")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["content-length"])).decode()
                status, body = outer.answer(self.headers["authorization"], dict(urllib.parse.parse_qsl(form)))
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls: ssl.SSLContext = server_tls(folder, issuer, issuer_key, "localhost")
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}/token"

    def __enter__(self) -> Self:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()

    def _public(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        modulus, exponent = (_b64(n.to_bytes((n.bit_length() + 7) // 8, "big")) for n in (numbers.n, numbers.e))
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": modulus, "e": exponent}

    def answer(self, shown: str | None, form: dict[str, str]) -> tuple[int, bytes]:
        """Return status and body for a request."""
        self.asked += 1
        if self.refusal is not None:
            return self.refusal
        login = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if shown != login or form != {"grant_type": "client_credentials", "scope": SCOPE}:
            return 401, b'{"error": "invalid_client"}'
        self.given += 1
        found = {"access_token": self.token(), "token_type": "Bearer", "expires_in": self._life_s}
        return 200, json.dumps(found).encode()

    def token(self) -> str:
        """Return a token that is valid from now on."""
        now_s = time.time()
        claims = {
            "iss": "tests",
            "aud": _AUDIENCE,
            "sub": CLIENT,
            "scope": SCOPE,
            "iat": now_s,
            "exp": now_s + self._life_s,
        }
        parts = [{"alg": "RS256", "kid": "one", "typ": "JWT"}, claims]
        signed = ".".join(_b64(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_b64(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def token_broker(server: TokenServer) -> tuple[JvmBroker, str]:
    """Return a broker, not started yet, and the address at which it wants tokens."""
    client, guarded, controller = (f"127.0.0.1:{free_port()}" for _ in range(3))
    oauth = "org.apache.kafka.common.security.oauthbearer"
    listener = "listener.name.guarded.oauthbearer"
    keys = server.keys.as_uri()
    properties: dict[str, Any] = {
        "listeners": f"CLIENT://{client},GUARDED://{guarded},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client},GUARDED://{guarded}",
        "controller.quorum.voters": f"1@{controller}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,GUARDED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{listener}.sasl.jaas.config":
            f'{oauth}.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        f"{listener}.sasl.server.callback.handler.class": f"{oauth}.OAuthBearerValidatorCallbackHandler",
        # So the broker ends connections whose token has ended, as Kafka does for tokens in any case.
        f"{listener}.connections.max.reauth.ms": "3600000",
        "sasl.oauthbearer.jwks.endpoint.url": keys,
        "sasl.oauthbearer.expected.audience": _AUDIENCE,
        "sasl.oauthbearer.clock.skew.seconds": "0",
    }  # fmt: skip
    flags = (*SHORT_LIVED, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}")
    return JvmBroker(int(client.rpartition(":")[2]), properties, flags=flags), guarded
