"""What an endpoint's answer means: delivered, later, or never; and how long it may make us wait. Pure.

| status                                            | meaning                                                        |
|---------------------------------------------------|----------------------------------------------------------------|
| 2xx                                               | delivered, whatever the body says or never ends to say          |
| 410                                               | the endpoint is gone: it is disabled, the callback refused      |
| 400 405 411 413 414 415 422 431 501 505 (setting) | this callback will never be taken: refused                      |
| 3xx                                               | later: never followed; a receiver that moved is to be corrected |
| 401 402 403 404 406 407 408 409 429 ..., 5xx      | later: receivers get repaired within days                       |
| 101, and what is no HTTP status                   | later                                                           |

Source: RFC 9110, 10.2.3 (Retry-After) and 15; Standard Webhooks 1.0.0, "Operational considerations".
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Literal

from contracts.settings.egress import CALLBACK_PERMANENT_STATUSES
from gateways.egress.schedule import retry_after_s

Meaning = Literal["delivered", "later", "refused", "gone"]


def meaning_of(status: int, permanent: Collection[int] = CALLBACK_PERMANENT_STATUSES) -> Meaning:
    """Return what a status means; see the table above."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return "delivered"
    if status == HTTPStatus.GONE:
        return "gone"
    return "refused" if status in permanent else "later"


def wait_asked_for(values: Sequence[str], now: datetime, ceiling_s: float) -> float | None:
    """Return for how long Retry-After asks us to wait, seconds; None when it says nothing that can be read.

    Args:
        values: of every Retry-After header; with more than one the longest counts.
        now: aware.
        ceiling_s: no answer makes us wait longer; the year 9999 is one of them.
    """
    waits = [wait_s for wait_s in (retry_after_s(value.strip(), now) for value in values) if wait_s is not None]
    return min(max(waits), ceiling_s) if waits else None
