"""The token endpoint: client credentials and JWT bearer, with the refusals that Salesforce gives.

Source: Salesforce Help, "OAuth 2.0 Client Credentials Flow", "OAuth 2.0 JWT Bearer Flow" (checked 2026-11).
"""

import base64
import binascii
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jwt

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MAX_ASSERTION_S = 300
_CLOCK_S = 180


class Refusal(NamedTuple):
    """What the endpoint answers."""

    error: str
    description: str
    status: int = 400


NO_SUCH_GRANT = Refusal("unsupported_grant_type", "grant type not supported")
WRONG_SECRET = Refusal("invalid_client", "invalid client credentials")
NO_SUCH_APP = Refusal("invalid_client_id", "client identifier invalid")
BAD_ASSERTION = Refusal("invalid_grant", "invalid assertion")
EXPIRED = Refusal("invalid_grant", "expired authorization code")
WRONG_AUDIENCE = Refusal("invalid_grant", "audience is invalid")
NOT_APPROVED = Refusal("invalid_grant", "user hasn't approved this consumer")
TOO_LONG = Refusal("invalid_grant", "assertion is valid for too long")
NO_USER = Refusal("invalid_grant", "no client credentials user enabled")
BUSY = Refusal("rate_limit_exceeded", "login rate exceeded", 429)


class LoginError(Exception):
    """A refused login."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self.refusal = refusal


@dataclass(frozen=True)
class App:
    """The org's external client app.

    Attributes:
        public_key: PEM of the certificate or key that verifies assertions; empty = no JWT bearer.
        username: who may be named in an assertion.
    """

    consumer_key: str
    consumer_secret: str
    public_key: str = ""
    username: str = "penstock@example.com"
    audience: str = "https://login.salesforce.com"


class Sessions:
    """Access tokens, and how many calls each has made.

    Args:
        app: who may log in.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._calls: dict[str, int] = {}
        self.logins = 0

    def log_in(self, form: Mapping[str, Any], authorization: str) -> str:
        """Return a new access token.

        Raises:
            LoginError: no.
        """
        grant = form.get("grant_type")
        if grant == "client_credentials":
            self._check_client(form, authorization)
        elif grant == JWT_GRANT:
            self._check_assertion(str(form.get("assertion", "")))
        else:
            raise LoginError(NO_SUCH_GRANT)
        token = f"00DHs0000000001!{secrets.token_urlsafe(48)}"
        self._calls[token] = 0
        self.logins += 1
        return token

    def note_call(self, authorization: str, limit: int | None) -> bool:
        """Count a call; return whether its session is a living one."""
        token = authorization.removeprefix("Bearer ")
        if token not in self._calls:
            return False
        self._calls[token] += 1
        if limit is not None and self._calls[token] > limit:
            del self._calls[token]
            return False
        return True

    def end_all(self) -> None:
        """End every session, as an administrator can."""
        self._calls.clear()

    def _check_client(self, form: Mapping[str, Any], authorization: str) -> None:
        key, secret = str(form.get("client_id", "")), str(form.get("client_secret", ""))
        if authorization.startswith("Basic "):
            try:
                key, _, secret = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise LoginError(WRONG_SECRET) from error
        if key != self._app.consumer_key:
            raise LoginError(NO_SUCH_APP)
        if not secrets.compare_digest(secret.encode(), self._app.consumer_secret.encode()):
            raise LoginError(WRONG_SECRET)

    def _check_assertion(self, assertion: str) -> None:
        app = self._app
        if not app.public_key:
            raise LoginError(BAD_ASSERTION)
        try:
            claims = jwt.decode(
                assertion,
                app.public_key,
                algorithms=["RS256"],
                audience=app.audience,
                leeway=_CLOCK_S,
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise LoginError(EXPIRED) from error
        except jwt.InvalidAudienceError as error:
            raise LoginError(WRONG_AUDIENCE) from error
        except jwt.PyJWTError as error:
            raise LoginError(BAD_ASSERTION) from error
        if claims["iss"] != app.consumer_key:
            raise LoginError(NO_SUCH_APP)
        if claims["sub"] != app.username:
            raise LoginError(NOT_APPROVED)
        if claims["exp"] > time.time() + _MAX_ASSERTION_S + _CLOCK_S:
            raise LoginError(TOO_LONG)
