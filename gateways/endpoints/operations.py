"""Health, metrics, and the description of the API."""

import asyncio
import functools
from collections.abc import Sequence

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from gateways.asgi import Request, Response
from gateways.metrics_page import metrics_page
from gateways.parts import Parts


async def get_health(parts: Parts, _request: Request, _parameter: bytes) -> Response:
    """Answer 200 as long as a restart would mend nothing."""
    return _status(parts.health.broken(), "alive")


async def get_readiness(parts: Parts, _request: Request, _parameter: bytes) -> Response:
    """Answer 200 when this process should get traffic."""
    return _status(await parts.health.unready(), "ready", parts.health.warnings())


async def get_metrics(_parts: Parts, _request: Request, _parameter: bytes) -> Response:
    """Answer with every metric of this gateway, whichever of its processes is asked."""
    # Not on the loop: with several processes files are read.
    page = await asyncio.to_thread(metrics_page)
    return Response(200, page, CONTENT_TYPE_LATEST.encode())


async def get_openapi(_parts: Parts, _request: Request, _parameter: bytes) -> Response:
    """Answer with the description of the API."""
    return Response(200, _openapi())


async def get_index(_parts: Parts, _request: Request, _parameter: bytes) -> Response:
    """Answer with where to go."""
    from gateways.endpoints.table import ENDPOINTS

    body = {
        "name": "penstock gateway",
        "openapi": "/openapi.json",
        "endpoints": [endpoint.path for endpoint in ENDPOINTS],
    }
    return Response(200, msgspec.json.encode(body))


@functools.cache
def _openapi() -> bytes:
    from gateways.openapi import openapi

    return msgspec.json.encode(openapi())


def _status(reasons: list[str], good: str, warnings: Sequence[str] = ()) -> Response:
    if reasons:
        return Response(503, msgspec.json.encode({"status": f"not_{good}", "reasons": reasons}))
    return Response(200, msgspec.json.encode({"status": good} | ({"warnings": warnings} if warnings else {})))
