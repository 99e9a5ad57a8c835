"""Fetches what Amazon SNS's messages refer to: certificates, and the URL that confirms a subscription.

Only URLs that gateways/ingress/sns.py has checked come here: https, SNS's own host, no port. Redirects are not
followed, proxies of the environment not used, answers bounded in size and time.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from contracts.errors import InvalidPayload, Retryable

if TYPE_CHECKING:
    from aiohttp import StreamReader

MAX_ANSWER_BYTES = 64 * 1024
_RETRY_AFTER_S = 5.0
_OK = 200
_THEIR_FAULT = range(400, 429)

# (url, limit in seconds) -> body of the answer 200; raises InvalidPayload and Retryable.
Fetch = Callable[[str, float], Awaitable[bytes]]


async def fetch(url: str, timeout_s: float) -> bytes:
    """Return the body of a GET.

    Raises:
        InvalidPayload: SNS answers that there is no such thing: the message that named it is wrong.
        Retryable: no answer in time, another status than 200, or too large an answer.
    """
    # Only here: every gateway loads this file, few have a source of SNS, and aiohttp reads the system's certificates
    # when it is imported, a fifth of the time a gateway takes to start.
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s), trust_env=False) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status in _THEIR_FAULT:
                message = f"Amazon SNS answered {response.status}"
                raise InvalidPayload(message)
            if response.status != _OK:
                message = f"Amazon SNS answered {response.status}"
                raise Retryable(message, retry_after_s=_RETRY_AFTER_S)
            return await _bounded(response.content)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        message = f"Amazon SNS cannot be reached: {type(error).__name__}"
        raise Retryable(message, retry_after_s=_RETRY_AFTER_S) from error


async def _bounded(content: "StreamReader") -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            message = f"the answer of Amazon SNS is larger than {MAX_ANSWER_BYTES} bytes"
            raise Retryable(message, retry_after_s=_RETRY_AFTER_S)
    return bytes(body)
