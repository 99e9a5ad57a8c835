"""A Salesforce org over REST: login, sObject Collections, and what its errors mean.

Blocking: every call is one request or more, all of them within the time it is given.

Source: REST API Developer Guide 62.0, "sObject Collections" and "Status Codes and Error Responses"; OAuth 2.0 client
credentials and JWT bearer flows (checked 2026-11). simple-salesforce 1.12 knows the protocol; what it lacks is here:
limits of time, one login for several threads, a login URL that is not below salesforce.com.
"""

import http.cookiejar
import threading
import time
from collections.abc import Sequence
from typing import Any

import jwt
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceError, SalesforceExpiredSession
from simple_salesforce.login import token_login

from contracts.errors import ConfigError
from contracts.settings.egress import SalesforceDoor, SalesforceLogin
from gateways.egress.base import Later
from gateways.egress.schedule import retry_after_s

_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Salesforce takes no assertion that lives longer than five minutes.
_ASSERTION_S = 180
_MIN_CALL_S = 0.1
_UNAVAILABLE = 500
_BAD_REQUEST = 400
# Of a whole request: the org will take it later.
_BUSY_CODES = frozenset(
    {"REQUEST_LIMIT_EXCEEDED", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT", "REQUEST_RUNNING_TOO_LONG", "UNABLE_TO_LOCK_ROW"}
)
# Of a whole request: one of its values is of a type that its field does not take.
_UNREADABLE_CODES = frozenset({"JSON_PARSER_ERROR"})
# What Salesforce's token endpoint says when it is busy; everything else there is for the operator.
_BUSY_LOGINS = frozenset({"rate_limit_exceeded", "temporarily_unavailable", "server_error", "unknown_error"})


class OrgFault(Exception):
    """The org did not do what was asked, and another time may help.

    Args:
        later: the verdict for every item of the call.
    """

    def __init__(self, later: Later) -> None:
        super().__init__(later.message)
        self.later = later


class UnreadableError(Exception):
    """One of the records makes the whole request unreadable for the org."""


class Org:
    """One org; safe for use by several threads.

    Args:
        settings: of the door.

    Raises:
        ConfigError: the secret of the login is missing, or the private key is none.
    """

    def __init__(self, settings: SalesforceDoor) -> None:
        self._login, self._version = settings.login, settings.api_version
        self._session = _Session(settings)
        self._lock = threading.Lock()
        self._api: Salesforce | None = None
        # Bytes that are no text, as of a key in DER, are refused below or by the org.
        secret = self._login.consumer_secret or self._login.private_key or _missing()
        self._secret = secret.resolve().decode(errors="replace")
        if self._login.private_key is not None:
            _assertion(self._login, self._secret)

    def retrieve(
        self, sobject: str, ids: Sequence[str], fields: Sequence[str], until_s: float
    ) -> list[dict[str, Any] | None]:
        """Return the records in the order of the ids; None for one that is deleted, or not to be seen by this user.

        Args:
            sobject: API name of the object.
            ids: at most 2,000.
            fields: to read.
            until_s: on the monotonic clock.

        Raises:
            OrgFault: not now.
        """
        found = self._call("POST", f"composite/sobjects/{sobject}", {"ids": ids, "fields": fields}, until_s)
        return _list_of(found, len(ids))

    def update(self, records: Sequence[dict[str, Any]], until_s: float) -> list[dict[str, Any]]:
        """Update up to 200 records, each for itself; return Salesforce's SaveResults in their order.

        Raises:
            OrgFault: not now; some may have been written all the same.
            UnreadableError: a value is of a type that its field does not take; nothing was written.
        """
        return _list_of(self._call("PATCH", "composite/sobjects", {"records": records}, until_s), len(records))

    def close(self) -> None:
        """Close idle connections; a call under way ends by its own limit."""
        self._session.close()

    def _call(self, method: str, path: str, body: dict[str, Any], until_s: float) -> Any:
        try:
            api = self._logged_in(None, until_s)
            try:
                return api.restful(path, method=method, json=body, timeout=_left_s(until_s))
            except SalesforceExpiredSession:
                # Once: a session that ends at once again is not a matter of logging in.
                api = self._logged_in(api, until_s)
                return api.restful(path, method=method, json=body, timeout=_left_s(until_s))
        except SalesforceAuthenticationFailed as error:
            raise OrgFault(_login_refused(error)) from error
        except SalesforceError as error:
            raise self._fault(error) from error
        except requests.Timeout as error:
            raise OrgFault(Later("timeout", "the org did not answer in time")) from error
        except requests.RequestException as error:
            raise OrgFault(Later("unreachable", f"the org cannot be reached: {type(error).__name__}")) from error
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            raise OrgFault(
                Later("unreadable_answer", f"the org's answer is not its protocol's: {error!r:.100}")
            ) from error

    def _logged_in(self, expired: Salesforce | None, until_s: float) -> Salesforce:
        """Return a client with a session that is not the expired one; one thread logs in, the others wait for it."""
        with self._lock:
            if self._api is None or self._api is expired:
                self._api = self._new_session(until_s)
            return self._api

    def _new_session(self, until_s: float) -> Salesforce:
        login = self._login
        data, headers = {"grant_type": "client_credentials", "client_id": login.consumer_key}, None
        if login.private_key is None:
            data["client_secret"] = self._secret
        else:
            data = {"grant_type": _JWT_GRANT, "assertion": _assertion(login, self._secret)}
        self._session.until_s = until_s
        url = f"{login.url}/services/oauth2/token"
        token, instance = token_login(url, data, "", login.consumer_key, headers, None, self._session)
        return Salesforce(instance=instance, session_id=token, version=self._version, session=self._session)

    def _fault(self, error: SalesforceError) -> OrgFault | UnreadableError:
        code, message = _code_of(error)
        if error.status == _BAD_REQUEST and code in _UNREADABLE_CODES:
            return UnreadableError(message)
        wait_s = self._session.take_retry_after()
        if isinstance(error, SalesforceExpiredSession):
            return OrgFault(Later("session_expired", message, wait_s))
        if code in _BUSY_CODES or error.status >= _UNAVAILABLE or error.status == requests.codes.too_many_requests:
            return OrgFault(Later(code.lower() or f"http_{error.status}", message, wait_s))
        # Permissions, a field or an object that is not there, a wrong version: every record would fail alike.
        return OrgFault(Later(code.lower() or f"http_{error.status}", message, scope="operator"))


class _Session(requests.Session):
    """No request without a limit, no redirect, no cookies.

    And nothing of this machine's environment: a .netrc would take the place of the token.
    """

    def __init__(self, settings: SalesforceDoor) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = str(settings.ca_file) if settings.ca_file else True
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self.mount("https://", HTTPAdapter(pool_maxsize=settings.max_in_flight, max_retries=0))
        self.until_s = 0.0
        self._told = threading.local()

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send a request; the login has no parameter for its limit, so it is `until_s`."""
        kwargs.setdefault("timeout", _left_s(self.until_s))
        kwargs["allow_redirects"] = False
        response = super().request(method, url, *args, **kwargs)
        self._told.retry_after = response.headers.get("Retry-After", "")
        return response

    def take_retry_after(self) -> float | None:
        """Return the seconds that the last answer of this thread asked to wait; None when it did not say."""
        return retry_after_s(getattr(self._told, "retry_after", ""))


def _assertion(login: SalesforceLogin, key: str) -> str:
    claims = {
        "iss": login.consumer_key,
        "sub": login.username,
        "aud": login.audience,
        "exp": int(time.time()) + _ASSERTION_S,
    }
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        message = f"login.private_key: {login.private_key} is not an RSA private key in PEM"
        raise ConfigError(message) from error


def _login_refused(error: SalesforceAuthenticationFailed) -> Later:
    code = str(error.code)
    busy = code in _BUSY_LOGINS or (code.isdigit() and int(code) >= _UNAVAILABLE)
    message = f"the login is refused: {code}: {error.auth_message}"[:300]
    return Later("login_failed", message, scope="destination" if busy else "operator")


def _code_of(error: SalesforceError) -> tuple[str, str]:
    """Return (error code, message) of the first error in a body; ("", status) when it is none of Salesforce's."""
    content: Any = error.content
    if isinstance(content, list) and content and isinstance(content[0], dict):
        first = content[0]
        return str(first.get("errorCode", ""))[:80], str(first.get("message", ""))[:300]
    return "", f"HTTP {error.status}"


def _list_of(found: Any, length: int) -> list[Any]:
    if not isinstance(found, list) or len(found) != length:
        raise OrgFault(Later("unreadable_answer", "the org's answer has not one entry per record"))
    return found


def _left_s(until_s: float) -> float:
    return max(_MIN_CALL_S, until_s - time.monotonic())


def _missing() -> Any:
    message = "login: neither consumer_secret nor private_key"
    raise ConfigError(message)
