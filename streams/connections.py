"""What aiokafka makes of a connection that is lost or runs out, put right, and its tokens; part of streams/fetching.py.

Verified, like streams/shell.py, against its TESTED_VERSIONS; a test touches every name.

    AIOKafkaConnection.send   wrapped: uvloop refuses bytes for a connection that is gone with a RuntimeError; and the
                              brokers' answer to a token or password says how long they take requests (KIP-368)
    client.send               wrapped: KeyError when two requests on one connection go unanswered at one time
    client._conns, connection._requests   read: a connection is made anew before the brokers end it
"""

import asyncio
import base64
import json
import math
import ssl
import time
import urllib.request
import weakref
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import SaslAuthenticateRequest

from contracts.errors import ConfigError
from contracts.kafka_config import oauth_of, oauth_secret
from contracts.logs import logger
from contracts.settings import KafkaSettings, OAuthSettings
from producers.kafka_client import msk_token
from producers.threads import in_pool

# Of a token's life until another one is asked for, and of a connection's until it is made anew: with the new token.
_RENEW_TOKEN, _RENEW_CONNECTION = 0.7, 0.8
# Between two questions to a token endpoint that does not give one, and for each.
_ASK_AGAIN_S, _ANSWER_S = 5.0, 10.0
# However short a token's life.
_LEAST_PAUSE_S = 1.0
_NO_TOKEN_S = 0.5
_MAX_REASON_CHARS = 300
# Monotonic seconds from which on a connection is to be made anew.
_old_at_s: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
Fetch = Callable[[], Awaitable[tuple[str, float]]]


def mend_connections() -> None:
    """Raise what everybody tries again after when a request is written to a connection that is gone, in the process.

    A reset connection is closed in one turn of the loop, and aiokafka's reader hears of it in the next. What is written
    in between asyncio's own loop drops; uvloop raises a RuntimeError, which nobody expects. It ended the task that
    learns where the brokers are, without a word, and with it every search for the group's coordinator.
    """
    if not hasattr(AIOKafkaConnection.send, "__wrapped__"):
        AIOKafkaConnection.send = _telling(AIOKafkaConnection.send)


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(connection: Any, request: Any, expect_response: bool = True) -> Any:
        writer = connection._writer  # noqa: SLF001
        try:
            answer = original(connection, request, expect_response)
        except RuntimeError as error:
            if writer is None or not writer.transport.is_closing():
                raise
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            message = f"connection at {connection.host}:{connection.port} broken: {error}"
            raise KafkaConnectionError(message) from error
        return _noting_life(connection, answer) if isinstance(request, SaslAuthenticateRequest) else answer

    send.__wrapped__ = original  # type: ignore[attr-defined]
    return send


async def _noting_life(connection: Any, answer: Awaitable[Any]) -> Any:
    """Note until when a connection can be used: until its token ends, or for the brokers' `connections.max.reauth.ms`.

    aiokafka does not look. A broker ends a connection with the first request that comes later, which is then lost.
    """
    found = await answer
    # 0: for ever. Before Kafka 2.2 nothing is said of it.
    if life_ms := getattr(found, "session_lifetime_ms", 0):
        _old_at_s[connection] = time.monotonic() + _RENEW_CONNECTION * life_ms / 1000
    return found


def _renew(client: Any, place: tuple[Any, Any]) -> None:
    """Close a connection that is about to run out, in a moment at which nobody waits for an answer on it."""
    connection = client._conns.get(place)  # noqa: SLF001
    is_old = connection is not None and time.monotonic() >= _old_at_s.get(connection, math.inf)
    if is_old and not connection._requests:  # noqa: SLF001
        connection.close(reason=CloseReason.IDLE_DROP)


def hear_lost_connections(client: Any) -> None:
    """Raise what everybody tries again after when a connection was closed for another request.

    1. Two requests on one connection run out of time in the same turn of the loop; the first closes it.
    2. Whoever asks next finds it closed, and takes it off aiokafka's list.
    3. The second looks it up there to close it: a KeyError, which would end the fetches or the place in the group.
    """
    original: Callable[..., Awaitable[Any]] = client.send

    async def send(node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        _renew(client, (node_id, group))
        try:
            return await original(node_id, request, group=group)
        except KeyError as error:
            if error.args != ((node_id, group),):
                raise
            message = f"the connection to broker {node_id} was closed for another request"
            raise KafkaConnectionError(message) from error

    client.send = send


class Tokens(AbstractTokenProvider):  # type: ignore[misc] # aiokafka has no types here
    """Keeps a token that the brokers are shown, and has the next one before it ends.

    While the endpoint gives none, the former one is shown as long as it is valid; then no connection can be made, which
    is tried again as one to a broker that is away. Belongs to the loop on which it is asked.

    Args:
        fetch: returns a token, and the seconds for which it is valid.
        extensions: SASL extensions that go with it.
        clock: monotonic seconds.
    """

    def __init__(
        self, fetch: Fetch, extensions: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._extensions = dict(extensions)
        self._clock = clock
        self._text, self._ends_s = "", -math.inf
        self._ask_at_s = -math.inf
        self._why = "none was asked for"
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    def extensions(self) -> dict[str, str]:
        """Return what goes with the token."""
        return self._extensions

    async def token(self) -> str:
        """Return a token that is valid; waits only where there is none.

        Raises:
            KafkaConnectionError: there is none, with the reason; it is tried again, every 5 s at most. Nothing else:
                aiokafka's tasks that ask would end with it.
        """
        if self._clock() >= self._ends_s and self._clock() >= self._ask_at_s:
            await self._renew()
        if self._clock() >= self._ends_s:
            # aiokafka makes a connection to a broker for each question, some 40 a second.
            await asyncio.sleep(_NO_TOKEN_S)
            message = f"there is no token for Kafka: {self._why}"
            raise KafkaConnectionError(message)
        return self._text

    async def _renew(self) -> None:
        asked_s = self._clock()
        try:
            self._text, life_s = await self._fetch()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do better
            self._why, pause_s = str(error) or type(error).__name__, _ASK_AGAIN_S
            valid_s = max(0, round(self._ends_s - self._clock())) if self._text else 0
            logger("worker").warning("kafka.token_refused", error=self._why, former_valid_s=valid_s)
        else:
            self._ends_s, pause_s = asked_s + life_s, max(_LEAST_PAUSE_S, _RENEW_TOKEN * life_s)
            self._why = f"the last one was valid for {life_s:g} s only"
        self._ask_at_s = asked_s + pause_s
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._begin)

    def _begin(self) -> None:
        self._renewal = asyncio.ensure_future(self._renew())


def tokens(kafka: KafkaSettings) -> Tokens:
    """Return what shows the brokers tokens, as the section `kafka` says.

    Raises:
        ConfigError: a secret is not set, the certificates cannot be used, or there are no credentials of AWS.
    """
    region = kafka.aws_region
    if kafka.sasl_mechanism == "AWS_MSK_IAM" and region:
        return Tokens(lambda: _of_msk(region), {})
    oauth = oauth_of(kafka)
    try:
        context = ssl.create_default_context(cafile=oauth.ca_file)
    except (OSError, ssl.SSLError) as error:
        message = f"kafka: oauth.ca_file cannot be used: {error}"
        raise ConfigError(message) from error
    secret = oauth_secret(oauth)
    return Tokens(lambda: _of_endpoint(oauth, secret, context), oauth.extensions)


async def _of_msk(region: str) -> tuple[str, float]:
    text, ends_s = await in_pool(None, msk_token, region)
    return text, ends_s - time.time()


async def _of_endpoint(oauth: OAuthSettings, secret: str, context: ssl.SSLContext) -> tuple[str, float]:
    """Ask a token endpoint, as librdkafka does: name and secret by HTTP Basic, proxies from the environment.

    Raises:
        ValueError: it refuses, or its answer is none.
    """
    login = base64.b64encode(f"{oauth.client_id}:{secret}".encode()).decode()
    form = {"grant_type": "client_credentials"} | ({"scope": oauth.scope} if oauth.scope else {})
    try:
        async with (
            # aiohttp's own look at the environment takes a .netrc as well, and refuses one beside a login.
            aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as session,
            session.post(
                oauth.token_url,
                data=form,
                headers={"Authorization": f"Basic {login}"},
                proxy=_proxy_for(oauth.token_url),
                ssl=context,
                allow_redirects=False,
            ) as answer,
        ):
            body = await answer.read()
    # The texts of both have the proxy's whole URL, with its password.
    except aiohttp.InvalidURL:
        message = "the proxy of the environment, or the token_url, is no URL"
        raise ValueError(message) from None
    except aiohttp.ClientHttpProxyError as error:
        message = f"the proxy of the environment answers {error.status}"
        raise ValueError(message) from None
    return _token_in(answer.status, body)


def _proxy_for(url: str) -> str | None:
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    # As curl reads `proxy:3128`; aiohttp takes `proxy` for its scheme, and writes the whole, with a password, as error.
    return proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}"


def _token_in(status: int, body: bytes) -> tuple[str, float]:
    """Return token and life of an answer (RFC 6749, 5.1); raise ValueError with what it says otherwise (5.2)."""
    try:
        found = json.loads(body)
        told = ": ".join(str(found[key]) for key in ("error", "error_description") if found.get(key))
        if status == HTTPStatus.OK and not told:
            text, life_s = found["access_token"], float(found["expires_in"])
            if isinstance(text, str) and text and math.isfinite(life_s) and life_s > 0:
                return text, life_s
            told = "the answer's access_token or expires_in cannot be used"
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
        told = "the answer has no access_token and expires_in"
    message = f"the token endpoint answers {status}: {told or 'nothing of a token'}"
    raise ValueError(message[:_MAX_REASON_CHARS])


__all__ = ["Tokens", "hear_lost_connections", "mend_connections", "tokens"]
