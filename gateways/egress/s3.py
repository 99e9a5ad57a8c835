"""Writes outcomes to Amazon S3: objects of many records, every record in exactly one, whatever crashes.

    <prefix>/topic=<topic>/dt=<day>/<partition>-<first offset>.jsonl.gz

The name follows from the first record, and an object that is there is never written again (If-None-Match): its
metadata say where it ends, and whoever comes to the same name goes on behind it. So two processes that hold each other
for dead write the same chain of objects. See: docs/egress.md.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from contracts.settings.egress import S3Door
from gateways.egress.aws import CALL_ERRORS, Aws, verdict_of
from gateways.egress.base import DELIVERED, Item, Later, PlainDoor, Refused, Shape, Verdict
from gateways.egress.s3_formats import Encoder, encoder_for

LAST_OFFSET = "penstock-last-offset"
_EXISTS_STATUS = 412
# Two at once for one name; one of them will be told that it exists.
_RACE_STATUS = 409


class S3(PlainDoor):
    """One bucket and prefix."""

    def __init__(self, name: str, settings: S3Door, session: Any = None) -> None:
        self._settings = settings
        self._aws = Aws(name, "s3", settings, session, {"addressing_style": "path"} if settings.path_style else None)
        self._encoder: Encoder = encoder_for(name, settings)
        # By topic and partition: first and last offset of the object that was there already, while its records come.
        self._found: dict[tuple[str, int], tuple[int, int]] = {}
        self.shape = Shape(
            settings.max_object_records, settings.max_object_bytes, settings.max_object_age_s, order="partition"
        )

    async def start(self) -> None:
        """Make the client."""
        await self._aws.start()

    async def aclose(self) -> None:
        """Close it."""
        await self._aws.aclose()

    def destination(self, item: Item) -> str:  # noqa: ARG002 - the protocol's
        """Name the bucket."""
        return self._settings.bucket

    def splits(self, first: Item, item: Item) -> bool:
        """Begin another object with another day; a straggler of the day before goes where it comes."""
        return _day(item) > _day(first)

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Write a run of one partition as one object."""
        place = items[0].position
        first, last = self._found.pop((place.topic, place.partition), (0, -1))
        if first < place.offset <= last:
            # The run before ended inside of an object that was there: this one begins inside of it.
            return self._beyond(items, first, last)
        try:
            await self._put(items)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == _EXISTS_STATUS:
                return await self._adopted(items)
            if status == _RACE_STATUS:
                return [Later("conflict", "another process writes the same object", scope="item")] * len(items)
            return [_kept(verdict_of(error))] * len(items)
        except CALL_ERRORS as error:
            return [_kept(verdict_of(error))] * len(items)
        return [DELIVERED] * len(items)

    async def _put(self, items: Sequence[Item]) -> None:
        first, last = items[0].position, items[-1].position
        body = await self._aws.run(self._encoder.encode, items)
        headers = {"ContentEncoding": self._encoder.content_encoding} if self._encoder.content_encoding else {}
        await self._aws.call(
            "put_object",
            Bucket=self._settings.bucket,
            Key=self._key(items[0]),
            Body=body,
            ContentType=self._encoder.content_type,
            IfNoneMatch="*",
            Metadata={
                "penstock-topic": first.topic,
                "penstock-partition": str(first.partition),
                "penstock-first-offset": str(first.offset),
                LAST_OFFSET: str(last.offset),
                "penstock-records": str(len(items)),
            },
            **headers,
        )

    async def _adopted(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Take the object that is there for what it is: some of these records have been written already."""
        try:
            found = await self._aws.call("head_object", Bucket=self._settings.bucket, Key=self._key(items[0]))
            last = int(found["Metadata"][LAST_OFFSET])
        except CALL_ERRORS as error:
            return [_kept(verdict_of(error))] * len(items)
        except (KeyError, ValueError):
            message = f"{self._key(items[0])} is there and not one of ours"
            return [Later("foreign_object", message, scope="operator")] * len(items)
        return self._beyond(items, items[0].position.offset, last)

    def _beyond(self, items: Sequence[Item], first: int, last: int) -> Sequence[Verdict]:
        """Count what is in an object already as delivered, and let the rest begin one of its own."""
        place = items[-1].position
        if place.offset < last:
            self._found[place.topic, place.partition] = first, last
        rest = Later("object_exists", f"the object ends at offset {last}", scope="item")
        return [DELIVERED if item.position.offset <= last else rest for item in items]

    def _key(self, first: Item) -> str:
        place = first.position
        name = f"{place.partition:05d}-{place.offset:020d}{self._encoder.suffix}"
        parts = (self._settings.prefix.rstrip("/"), f"topic={place.topic}", f"dt={_day(first)}", name)
        return "/".join(part for part in parts if part)


def _kept(verdict: Later | Refused) -> Later:
    """Hold back what S3 refuses: a refusal is about the bucket or the request, never about one record of many."""
    if isinstance(verdict, Refused):
        return Later(verdict.reason, verdict.message, scope="operator")
    return verdict


def _day(item: Item) -> str:
    return datetime.fromtimestamp(item.position.timestamp_ms / 1000, UTC).date().isoformat()
