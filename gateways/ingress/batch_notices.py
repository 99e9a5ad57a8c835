"""Turns a notification about an S3 object into the request for a batch job; `penstock batch serve` does the rest.

Writes: nothing; the intake produces the record, and the queue's message goes after the broker's ack.
"""

from collections.abc import Sequence

from contracts.batch_jobs import job_record, request_of
from contracts.codec import Record
from contracts.errors import Undecodable
from contracts.settings.batch_jobs import BatchInput
from contracts.topics import Topics
from gateways.ingress.envelopes.base import Item
from gateways.ingress.s3_objects import object_of


class BatchNotices:
    """Knows which objects become jobs.

    Args:
        inputs: sections of `batch_jobs.inputs`; the first that matches takes the object.
        topics: names of the topics.
    """

    def __init__(self, inputs: Sequence[BatchInput], topics: Topics) -> None:
        self._inputs = tuple(inputs)
        self._topics = topics

    def record(self, item: Item) -> Record | None:
        """Return the request for an object's job; None for what is to become an event.

        A notification that comes again asks for the same job, whose id is derived from the object.
        """
        try:
            found = object_of(item.body)
        except Undecodable:
            return None
        # A deletion tells no ETag.
        if not found.etag:
            return None
        request = request_of(
            self._inputs,
            found.bucket,
            found.key,
            version_id=found.version_id,
            etag=found.etag,
            size_bytes=found.size,
            at=item.time,
        )
        return job_record(self._topics, request) if request else None
