"""The ASGI application: hygiene, routing, errors into answers, one log line and two metrics per exchange."""

import asyncio
import contextlib
import time
from typing import Literal

from contracts.errors import MethodNotAllowed, PenstockError, RateLimited
from contracts.line_log import LineLog
from contracts.logs import logger
from contracts.metrics import HTTP_DURATION, HTTP_REQUESTS
from contracts.tallies import Tally
from gateways.asgi import Message, Receive, Request, Response, Send, send
from gateways.endpoints.table import Endpoint, find
from gateways.parts import Parts
from gateways.problems import internal, problem, problem_of
from gateways.streaming import send_stream
from gateways.websocket import Admitted, admit, raw_id_of, refuse_websocket, serve_websocket

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
_SERVER_ERROR = 500
_CLIENT_ERROR = 400
_MAX_LOGGED_PATH = 200
_FRAMINGS: tuple[list[bytes], ...] = ([], [b"chunked"])
# ASGI says 1.0, granian says 1.
_HTTP_1_0 = frozenset({"1.0", "1"})

_log = logger("gateway")
_answers = Tally(HTTP_REQUESTS, HTTP_DURATION)
_statuses = {status: str(status) for status in range(100, 600)}


class Api:
    """The application.

    Args:
        parts: what the handlers work with.

    Attributes:
        in_progress: tasks of the requests that are being answered, each with the address that it counts for, if any.
        log: their lines; whoever ends the process flushes it.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.in_progress: dict[asyncio.Task[None], str] = {}
        self._max_open_per_peer = parts.limits.max_open_per_peer
        self.log = LineLog("gateway", lambda after_s, call: asyncio.get_running_loop().call_later(after_s, call))

    async def __call__(self, scope: Message, receive: Receive, send_message: Send) -> None:
        """Answer one request."""
        task = asyncio.current_task()
        if task is not None:
            self.in_progress[task] = ""
        try:
            if scope["type"] != "http":
                await self._serve_other(scope, receive, send_message)
                return
            # No coroutine of its own for what follows: every one on the way costs at each wait.
            started_s = time.perf_counter()
            request = Request(scope, receive)
            endpoint, parameter, response = self._meet(request)
            if response is None:
                try:
                    response = await endpoint.handler(self._parts, request, parameter)
                except PenstockError as error:
                    self._quieten(request, error)
                    response = _refused(request, error)
                except Exception:  # noqa: BLE001 - the edge: whatever is wrong with us, the sender is to come back
                    _log.exception("request.failed", path=_shown(request.path))
                    response = internal()
            # A body that was not read leaves the connection in the middle of it.
            closes = response.closes or request.is_body_pending or self._parts.health.is_shutting_down
            if closes != response.closes:
                response = response._replace(closes=closes)
            is_head = request.method == "HEAD"
            if response.stream is None:
                await send(response, send_message, is_head=is_head)
            self._note(endpoint, request, response, time.perf_counter() - started_s)
            if response.stream is not None:
                await send_stream(response, response.stream, request.receive, send_message, is_head=is_head)
        finally:
            if task is not None and (peer := self.in_progress.pop(task, "")):
                self._parts.limits.open.give_back(peer)

    def _quieten(self, request: Request, error: PenstockError) -> None:
        """Of an API key that is over its limit again and again, write a line now and then."""
        owner = request.notes.get("owner")
        if owner is not None and isinstance(error, RateLimited):
            self._say_seldom(request, owner)

    def _say_seldom(self, request: Request, name: str) -> None:
        left_out = self._parts.limits.left_out("", name)
        request.is_quiet = left_out is None
        request.notes["similar_left_out"] = left_out

    async def _serve_other(self, scope: Message, receive: Receive, send_message: Send) -> None:
        if scope["type"] != "websocket":
            return
        started_s = time.perf_counter()
        request = Request({**scope, "method": "GET"}, receive)
        await receive()
        with contextlib.ExitStack() as held:
            met = self._meet_websocket(request, held)
            response = met if isinstance(met, Response) else _SWITCHED
            self._note(_WEBSOCKET, request, response, time.perf_counter() - started_s)
            if isinstance(met, Response):
                await refuse_websocket(met, send_message)
            else:
                await serve_websocket(self._parts, request, met, send_message)

    def _meet_websocket(self, request: Request, held: contextlib.ExitStack) -> Admitted | Response:
        """Return who gets a WebSocket, or the answer to a request that gets none."""
        refusal, raw_id = _unfit(request), raw_id_of(request.path)
        if refusal is not None:
            return refusal
        if raw_id is None:
            return _nowhere(request)
        refusal = self._crowded(_WEBSOCKET, request)
        if refusal is not None:
            return refusal
        try:
            return admit(self._parts, request, raw_id, held)
        except PenstockError as error:
            self._quieten(request, error)
            return _refused(request, error)
        except Exception:  # noqa: BLE001 - the edge
            _log.exception("request.failed", path=_shown(request.path))
            return internal()

    def _crowded(self, endpoint: Endpoint, request: Request) -> Response | None:
        """Count a request for its address until it is answered; return the refusal where too many are open already."""
        task = asyncio.current_task()
        # Probes may come through the balancer through which everybody comes.
        if self._max_open_per_peer is None or endpoint.logged == "none" or task is None:
            return None
        peer = self._parts.peers.find(request.peer, request.headers).name
        try:
            self._parts.limits.open.take(peer, self._max_open_per_peer, "open_per_peer")
        except RateLimited as error:
            request.notes["peer"] = peer
            self._say_seldom(request, peer)
            return _refused(request, error)._replace(closes=True)
        self.in_progress[task] = peer
        return None

    def _note(self, endpoint: Endpoint, request: Request, response: Response, duration_s: float) -> None:
        """Count and log an exchange; one that goes on for long when it begins."""
        _answers[endpoint.name, _statuses[response.status]].append(duration_s)
        logged = "none" if request.is_quiet else endpoint.logged
        if logged == "all" or (logged == "refused" and response.status >= _CLIENT_ERROR):
            self._log_exchange(request, response, duration_s)

    def _log_exchange(self, request: Request, response: Response, duration_s: float) -> None:
        fields = request.notes
        fields["status"], fields["duration_s"] = response.status, round(duration_s, 6)
        if response.status < _CLIENT_ERROR:
            self.log.write("request.accepted", "info", fields)
            return
        level: Literal["info", "warning"] = "warning" if response.status >= _SERVER_ERROR else "info"
        self.log.write("request.refused", level, {"path": _shown(request.path), **fields})

    def _meet(self, request: Request) -> tuple[Endpoint, bytes, Response | None]:
        """Return the endpoint and its parameter, and the answer to a request that no handler should see."""
        found = find(request.path, request.method)
        refusal = _unfit(request)
        if refusal is not None or found is None:
            return _NOWHERE, b"", refusal or _nowhere(request)
        endpoint, parameter, allow = found
        if endpoint.methods is not None and request.method != "POST":
            # POST is what every parameter has: the usual request does not pay for the others.
            allow = endpoint.methods(self._parts, parameter)
        if request.method not in allow:
            return endpoint, parameter, _refused(request, MethodNotAllowed(allow))
        return endpoint, parameter, self._crowded(endpoint, request) if self._max_open_per_peer else None


async def _not_found(_parts: Parts, request: Request, _parameter: bytes) -> Response:
    return _nowhere(request)


# Of a path that has no endpoint, and of a request for a WebSocket, which is in no OpenAPI document.
_NOWHERE = Endpoint("unknown", "GET", "", _not_found, {})
_WEBSOCKET = Endpoint("websocket", "GET", "/v1/stream", _not_found, {})
_SWITCHED = Response(101)


def _unfit(request: Request) -> Response | None:
    """Return the refusal of a request that no handler should see; the HTTP server leaves these checks to us."""
    once = request.headers.once
    if (
        once.get(b"host")
        and not request.headers.repeated
        and b"transfer-encoding" not in once
        and request.path
        and len(request.path) + len(request.query) <= MAX_URL_BYTES
        and request.header_bytes <= MAX_HEADER_BYTES
    ):
        # What is usual is told at once.
        return None
    hosts, refusal = request.values(b"host"), None
    if len(request.path) + len(request.query) > MAX_URL_BYTES:
        refusal = problem(414, "url_too_long", closes=True)
    elif request.header_bytes > MAX_HEADER_BYTES:
        refusal = problem(431, "headers_too_large", closes=True)
    elif len(hosts) > 1 or (request.http_version not in _HTTP_1_0 and hosts in ([], [b""])):
        refusal = problem(400, "host_invalid", "one Host header is needed", closes=True)
    elif [value.lower() for value in request.values(b"transfer-encoding")] not in _FRAMINGS:
        # The server undoes `chunked` and passes over what stands before it: nobody would have undone that.
        refusal = problem(400, "framing_invalid", "transfer-encoding may be chunked, once", closes=True)
    elif request.path == b"" and request.method != "CONNECT":
        refusal = problem(400, "target_invalid", "the request names no path", closes=True)
    if refusal is not None:
        request.notes["reason"] = "unfit"
    return refusal


def _nowhere(request: Request) -> Response:
    if request.path in {b"", b"*"}:
        # CONNECT and OPTIONS * name no path.
        return _refused(request, MethodNotAllowed(("GET", "HEAD", "POST")))
    request.notes["reason"] = "not_found"
    return problem(404, "not_found", "no such path")


def _refused(request: Request, error: PenstockError) -> Response:
    request.notes["reason"] = error.reason
    # BadSignature keeps its private reason apart; elsewhere the text is the detail.
    request.notes["detail"] = getattr(error, "detail", str(error))
    age_s = getattr(error, "age_s", None)
    if age_s is not None:
        request.notes["age_s"] = age_s
    return problem_of(error)


def _shown(path: bytes) -> str:
    return ascii(path[:_MAX_LOGGED_PATH].decode("latin-1"))[1:-1]
