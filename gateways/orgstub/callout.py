"""What the Apex of the example does: one signed event per new Opportunity, posted to the gateway, with its waits.

See: examples/salesforce-opportunity-summary/salesforce/PenstockOpportunitySender.cls
"""

import asyncio
import collections
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp

from gateways.orgstub.records import Record

TIMEOUT_S = 10.0
# The class's WAITS_MIN, in seconds.
WAITS_S = (60.0, 120.0, 240.0, 480.0, 600.0)
_AT_A_TIME = 8
_TOO_MANY, _TIMED_OUT, _OURS, _DONE = 429, 408, 500, 300


class Callouts:
    """Sends what the trigger enqueues.

    Args:
        url: of the gateway, without a path.
        secret: of the source.
        wait_scale: factor for the waits between tries, for tests that cannot wait for minutes.
    """

    def __init__(self, url: str, secret: bytes, wait_scale: float = 1.0) -> None:
        self._endpoint = f"{url}/webhooks/salesforce"
        self._secret, self._wait_scale = secret, wait_scale
        self._due: collections.deque[tuple[dict[str, Any], int]] = collections.deque()
        # Belongs to no loop before it is waited for.
        self._is_due = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self.given_up = 0

    def enqueue(self, record: Record) -> None:
        """Take a new record; returns at once."""
        self._due.append((payload_of(record), 0))
        self._is_due.set()

    async def start(self) -> None:
        """Begin to send."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._http = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        self._tasks |= {asyncio.create_task(self._send_all(self._http)) for _ in range(_AT_A_TIME)}

    async def aclose(self) -> None:
        """Stop; what is still due is lost, as jobs of an org that is gone are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def _send_all(self, http: aiohttp.ClientSession) -> None:
        while True:
            while not self._due:
                self._is_due.clear()
                await self._is_due.wait()
            payload, failures = self._due.popleft()
            if await self._is_done(http, json.dumps(payload).encode()):
                continue
            if failures >= len(WAITS_S):
                self.given_up += 1
                continue
            asyncio.get_running_loop().call_later(
                WAITS_S[failures] * self._wait_scale, self._again, payload, failures + 1
            )

    def _again(self, payload: dict[str, Any], failures: int) -> None:
        self._due.append((payload, failures))
        self._is_due.set()

    async def _is_done(self, http: aiohttp.ClientSession, body: bytes) -> bool:
        """Tell whether an event needs no further try: it is durable, or sending it again cannot help."""
        stamp = str(int(time.time()))
        signature = hmac.digest(self._secret, stamp.encode() + b"." + body, "sha256").hex()
        headers = {
            "content-type": "application/json",
            "x-salesforce-timestamp": stamp,
            "x-salesforce-signature": signature,
        }
        try:
            async with http.post(self._endpoint, data=body, headers=headers) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            return False
        return status < _DONE or not (status in {_TIMED_OUT, _TOO_MANY} or status >= _OURS)


def payload_of(record: Record) -> dict[str, Any]:
    """Return the event, field for field as the Apex class builds it."""
    names = (
        "Name",
        "StageName",
        "Probability",
        "Amount",
        "CloseDate",
        "Type",
        "LeadSource",
        "NextStep",
        "Description",
    )
    created = datetime.fromtimestamp(record.created_s, UTC)
    return {
        "eventId": f"created-{record.id}",
        "eventType": "OpportunityCreated",
        "createdDate": created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "organizationId": "00DHs000001TkQvMAK",
        "opportunity": {
            "Id": record.id,
            "CurrencyIsoCode": "USD",
            "Owner": {"Name": "Dana Reyes"},
            **{name: record.values[name] for name in names},
        },
        "account": None,
    }
