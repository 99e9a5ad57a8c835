"""The model call of the Python peers: one aiohttp session, retries with doubling pauses, no other limit."""

import asyncio

import aiohttp

from bench.peers.task import ATTEMPTS, OK, POISON, RETRY_S, request, result


def session(in_flight: int) -> aiohttp.ClientSession:
    """Return a session that can hold so many calls."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))


async def process(client: aiohttp.ClientSession, url: str, value: bytes) -> bytes:
    """Call the model for a record and return the result's value."""
    headers, body = request(value)
    status, response = 0, b""
    for attempt in range(ATTEMPTS):
        async with client.post(url, data=body, headers=headers) as answer:
            status, response = answer.status, await answer.read()
        if status in {OK, POISON}:
            break
        await asyncio.sleep(RETRY_S * 2**attempt)
    return result(value, status, response)
