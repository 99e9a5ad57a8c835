"""The stub's HTTPS server: routes, sessions and faults around every call, its own doors, and a certificate of its own.

Blocking: `serve` runs until SIGTERM or SIGINT.
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from contracts.settings.section import authority
from contracts.signals import StopSignals
from gateways.orgstub import api
from gateways.orgstub.callout import Callouts
from gateways.orgstub.knobs import Knobs
from gateways.orgstub.oauth import BUSY, NO_USER, LoginError, Refusal
from gateways.orgstub.org import ORG, Org
from gateways.orgstub.records import ApiError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MAX_BODY_BYTES = 50 * 2**20
_DATA = "/services/data/{version}"
_FAULTS = {
    "limit": ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    "unavailable": ApiError(503, "SERVER_UNAVAILABLE", "Server Too Busy"),
    "session": ApiError(401, "INVALID_SESSION_ID", "Session expired or invalid"),
    "no_permission": ApiError(403, "API_DISABLED_FOR_ORG", "The REST API is not enabled for this organization."),
    "no_field": ApiError(400, "INVALID_FIELD", "No such column 'Penstock_Result__c' on sobject of type Opportunity"),
}


def create_app(org: Org) -> web.Application:
    """Return the application over an org."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_as_salesforce])
    app[ORG] = org
    app.add_routes(
        [
            web.post("/services/oauth2/token", log_in),
            web.get("/services/data", api.versions),
            web.get(f"{_DATA}/limits{{slash:/?}}", api.limits),
            # Salesforce takes a slash at the end, and some clients write one.
            web.post(f"{_DATA}/sobjects/{{sobject}}{{slash:/?}}", api.create),
            web.get(f"{_DATA}/sobjects/{{sobject}}/{{id}}", api.show),
            web.patch(f"{_DATA}/sobjects/{{sobject}}/{{id}}", api.change),
            web.delete(f"{_DATA}/sobjects/{{sobject}}/{{id}}", api.delete),
            web.post(f"{_DATA}/composite/sobjects", api.create_many),
            web.patch(f"{_DATA}/composite/sobjects", api.change_many),
            web.post(f"{_DATA}/composite/sobjects/{{sobject}}", api.retrieve_many),
            web.get("/_stub/knobs", show_knobs),
            web.patch("/_stub/knobs", turn_knobs),
            web.get("/_stub/records", show_records),
            web.delete("/_stub/sessions", end_sessions),
            web.delete("/_stub", reset),
        ]
    )
    return app


@web.middleware
async def _as_salesforce(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every call of the API its session, its limit, its fault, and its error body."""
    org = request.app[ORG]
    if not request.path.startswith("/services/data"):
        return await handler(request)
    org.calls += 1
    await asyncio.sleep(org.knobs.latency_s)
    try:
        await _before(request, org)
        if org.next_fault("cut"):
            return _cut(request)
        if org.next_fault("bad_gateway"):
            return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
        response = await handler(request)
        is_update = request.method == "PATCH"
        lost = org.next_fault("lost_answer") if is_update else ""
        if lost or (is_update and org.dice.random() < org.knobs.lost_answer_rate):
            return _cut(request)
    except ApiError as error:
        response = web.json_response([{"message": error.message, "errorCode": error.code}], status=error.status)
        if org.knobs.retry_after_s is not None and error.status in {403, 503}:
            response.headers["Retry-After"] = str(org.knobs.retry_after_s)
    response.headers["Sforce-Limit-Info"] = f"api-usage={org.calls}/{org.knobs.daily_calls}"
    return response


async def _before(request: web.Request, org: Org) -> None:
    if not org.sessions.note_call(request.headers.get("Authorization", ""), org.knobs.session_calls):
        raise _FAULTS["session"]
    if org.calls > org.knobs.daily_calls:
        raise _FAULTS["limit"]
    if org.dice.random() < org.knobs.unavailable_rate:
        raise _FAULTS["unavailable"]
    fault = org.next_fault("hang", *_FAULTS)
    if fault == "hang":
        await asyncio.Event().wait()
    if fault in _FAULTS:
        raise _FAULTS[fault]


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def log_in(request: web.Request) -> web.Response:
    """Serve the token endpoint."""
    org = request.app[ORG]
    fault = org.next_fault("login_refused", "login_busy")
    if fault:
        return _refused(NO_USER if fault == "login_refused" else BUSY)
    try:
        token = org.sessions.log_in(await request.post(), request.headers.get("Authorization", ""))
    except LoginError as error:
        return _refused(error.refusal)
    instance = f"https://{request.host}"
    return web.json_response({"access_token": token, "instance_url": instance, "token_type": "Bearer", "scope": "api"})


def _refused(refusal: Refusal) -> web.Response:
    body = {"error": refusal.error, "error_description": refusal.description}
    return web.json_response(body, status=refusal.status)


async def show_knobs(request: web.Request) -> web.Response:
    """Serve GET /_stub/knobs."""
    return web.json_response(request.app[ORG].knobs.model_dump(mode="json"))


async def turn_knobs(request: web.Request) -> web.Response:
    """Serve PATCH /_stub/knobs: what is not named stays; failures count anew."""
    org = request.app[ORG]
    try:
        org.turn(Knobs.model_validate(org.knobs.model_dump() | json.loads(await request.read())))
    except (ValidationError, ValueError, TypeError) as error:
        return web.json_response({"error": str(error)}, status=400)
    return await show_knobs(request)


async def show_records(request: web.Request) -> web.Response:
    """Serve GET /_stub/records: every record with all its updates, which no real org tells; and the counters."""
    org = request.app[ORG]
    records = [
        {
            "id": record.id,
            "created_s": record.created_s,
            "values": record.values,
            "reads": record.reads,
            "lockouts": record.lockouts,
            "writes": [write._asdict() for write in record.writes],
        }
        for record in org.records.all()
    ]
    return web.json_response({"calls": org.calls, "logins": org.sessions.logins, "records": records})


async def end_sessions(request: web.Request) -> web.Response:
    """Serve DELETE /_stub/sessions."""
    request.app[ORG].sessions.end_all()
    return web.Response(status=204)


async def reset(request: web.Request) -> web.Response:
    """Serve DELETE /_stub: a new org, with the knobs it was started with."""
    request.app[ORG].reset()
    return web.Response(status=204)


async def serve(org: Org, host: str, port: int, tls: ssl.SSLContext, callouts: Callouts | None) -> None:
    """Listen, say where, and run until SIGTERM or SIGINT.

    Raises:
        OSError: the address cannot be had.
    """
    stop = asyncio.Event()
    StopSignals(lambda _: stop.set()).follow(asyncio.get_running_loop().add_signal_handler)
    runner = web.AppRunner(create_app(org), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, backlog=1024).start()
        if callouts is not None:
            await callouts.start()
        bound = runner.addresses[0][1]
        print(f"listening on https://{authority(host, bound)}", flush=True)  # noqa: T201 - the line scripts wait for
        await stop.wait()
    finally:
        if callouts is not None:
            await callouts.aclose()
        await runner.cleanup()


def tls_of(folder: Path) -> ssl.SSLContext:
    """Return the server's side of TLS, with a certificate of `certificates.make`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context
