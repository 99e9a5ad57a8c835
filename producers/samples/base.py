"""What a sample is, and what the samples share: one seed, one event."""

import random
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import yaml

# Bodies carry dates; a fixed day keeps one seed's events the same for ever.
BASE_DAY = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Sample:
    """One event before it is signed.

    Attributes:
        id: unique; senders that put an id into a header or into the signed text use it.
        body: JSON, compact.
        headers: what this sender sends besides the signature, lower-case names.
        key: the business key that several events share.
        title: a few words for people.
    """

    id: str
    body: bytes
    key: str
    title: str
    headers: dict[str, str] = field(default_factory=dict)


@cache
def texts(name: str) -> dict[str, Any]:
    """Return the texts of one sender's events."""
    raw = files("producers.samples").joinpath("data", f"{name}.yaml").read_text(encoding="ascii")
    found: dict[str, Any] = yaml.safe_load(raw)
    return found


def to_json(document: dict[str, Any]) -> bytes:
    """Return compact JSON, keys in the order given."""
    return msgspec.json.encode(document)


def token(rng: random.Random, length: int) -> str:
    """Return letters and digits, as vendors make their ids."""
    return "".join(rng.choices(_ALPHANUMERIC, k=length))


def guid(rng: random.Random) -> str:
    """Return a random UUID in its usual writing."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def moment(rng: random.Random) -> datetime:
    """Return an instant of the days after BASE_DAY, whole seconds."""
    return BASE_DAY + timedelta(seconds=rng.randrange(14 * 86_400))


def stamp(instant: datetime) -> str:
    """Write an instant as the vendors' JSON does."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
