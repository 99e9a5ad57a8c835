"""The stub's own doors: knobs, statistics, health."""

import json
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from streams.fmstub.knobs import Knobs
from streams.fmstub.stats import Stats
from streams.fmstub.wire import BACKEND


async def show_knobs(request: web.Request) -> web.Response:
    """Serve GET /_stub/knobs."""
    return web.json_response(request.app[BACKEND].knobs.model_dump(mode="json"))


async def put_knobs(request: web.Request) -> web.Response:
    """Serve PUT /_stub/knobs: knobs that are not named go back to how the server was started.

    Scripted failures start counting anew.
    """
    backend = request.app[BACKEND]
    return await _set(request, backend.start_knobs.model_dump())


async def patch_knobs(request: web.Request) -> web.Response:
    """Serve PATCH /_stub/knobs: knobs that are not named stay as they are; scripted failures start counting anew."""
    return await _set(request, request.app[BACKEND].knobs.model_dump())


async def _set(request: web.Request, base: dict[str, Any]) -> web.Response:
    backend = request.app[BACKEND]
    try:
        changes = json.loads(await request.read() or b"{}")
        if not isinstance(changes, dict):
            return _refused("the body must be a JSON object")
        backend.knobs = check_knobs(base | changes)
    except (ValidationError, ValueError) as error:
        return _refused(explain(error))
    backend.plan.reset()
    return await show_knobs(request)


def check_knobs(values: dict[str, Any]) -> Knobs:
    """Return checked knobs.

    Raises:
        ValueError: a knob is unknown or wrong; pydantic's ValidationError is one.
    """
    knobs = Knobs.model_validate(values)
    total = sum(knobs.error_rates.values())
    if total > 1 + 1e-9:
        message = f"error_rates add up to {total:g}, more than 1"
        raise ValueError(message)
    return knobs


def explain(error: Exception) -> str:
    """Return what is wrong with knobs, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return "; ".join(problems)


def _refused(why: str) -> web.Response:
    return web.json_response({"error": why}, status=400)


async def show_stats(request: web.Request) -> web.Response:
    """Serve GET /_stub/stats."""
    return web.json_response(request.app[BACKEND].stats.snapshot())


async def reset_stats(request: web.Request) -> web.Response:
    """Serve DELETE /_stub/stats: start counting anew; calls in flight stay counted."""
    backend = request.app[BACKEND]
    fresh = Stats()
    fresh.in_flight = fresh.peak_in_flight = backend.stats.in_flight
    backend.stats = fresh
    return web.Response(status=204)


async def health(request: web.Request) -> web.Response:
    """Serve GET /healthz."""
    del request
    return web.json_response({"status": "ok"})
