"""Who calls: an API key, within its limits."""

from contracts.errors import RateLimited
from gateways.asgi import Request
from gateways.ingress.admission import Admission
from gateways.ingress.callers import Caller
from gateways.parts import Parts


def called_by(parts: Parts, request: Request) -> Caller:
    """Return who calls, and count the request.

    Raises:
        Unauthenticated: no key, or an unknown one.
        InvalidPayload: two Authorization headers.
        RateLimited: too many requests with this key.
    """
    caller = parts.callers.authenticate(request.headers)
    request.notes["owner"] = caller.id
    parts.caller_limits.request(caller)
    return caller


async def posted_by(parts: Parts, request: Request) -> tuple[Caller, Admission]:
    """Return who posts an event, and where its body counts; nothing of it is read yet.

    Raises:
        PenstockError: as `called_by`; also where there is no room for an event.
    """
    try:
        caller = called_by(parts, request)
        return caller, parts.caller_limits.posting(caller)
    except RateLimited:
        await request.discard()
        raise
