"""What the labs of all doors to AWS have in common."""

import abc
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from contracts.settings.egress import AwsDoor
from gateways.egress.base import Door, Item
from tests.awslab.front import Fault, Front
from tests.awslab.moto import REGION, Moto
from tests.suites.egress import TIMEOUT_S, Received, result_item

KINDS: Mapping[str, tuple[int, str]] = {
    "throttled": (400, "ThrottlingException"),
    "unavailable": (503, "ServiceUnavailable"),
    "denied": (403, "AccessDeniedException"),
    "missing": (404, "ResourceNotFoundException"),
}


class AwsLab(abc.ABC):
    """A door to a service of moto, with a front between that fails.

    Args:
        moto: the emulator.
        front: what the door is pointed at.
    """

    cannot: ClassVar[Mapping[str, str]] = {}
    codes: ClassVar[Mapping[str, tuple[int, str]]] = KINDS

    def __init__(self, moto: Moto, front: Front) -> None:
        self.moto = moto
        self.front = front
        self.name = f"t{uuid.uuid4().hex[:10]}"
        self._door: Door | None = None

    @property
    def door(self) -> Door:
        """Return the started door."""
        assert self._door is not None
        return self._door

    async def start(self) -> None:
        """Make the destination, and the door to it."""
        self._door = self.make()
        await self._door.start()

    async def aclose(self) -> None:
        """Close the door, and let hanging calls go."""
        await self.front.stop()
        await self.door.aclose()

    @abc.abstractmethod
    def make(self, **changes: Any) -> Door:
        """Make the destination when it is not there, and return a door to it."""

    @abc.abstractmethod
    def error(self, status: int, code: str) -> Fault:
        """Return an error in the service's own words."""

    @abc.abstractmethod
    async def received(self) -> list[Received]:
        """Return what has arrived."""

    def settings(self, section: type[AwsDoor], **fields: Any) -> Any:
        """Return a section that points at the front."""
        common = {"region": REGION, "endpoint_url": self.front.url, "timeout_s": TIMEOUT_S, "max_in_flight": 2}
        return section.model_validate(common | fields)

    def item(self, number: int) -> Item:
        """Return an item of this number."""
        return result_item(number)

    def poison(self) -> Item:
        """Return an item that is too large for the service."""
        return result_item(99, output="x" * 300_000)

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        """Let every further call fail."""
        if kind == "away":
            await self.front.stop()
            return
        if kind in {"hang", "cut"}:
            self.front.fault = Fault(-1 if kind == "hang" else 0)
            return
        self.front.fault = self.error(*self.codes[kind])
        if retry_after_s is not None:
            self.front.fault.headers["Retry-After"] = f"{retry_after_s:g}"

    async def recover(self) -> None:
        """Let every further call through."""
        self.front.fault = None
        if not self.front.is_up:
            await self.front.start()
