"""The jobs topic: what was asked for, and how far each job is.

Reads: batch-jobs. Blocking: reads the topic, which is compacted and small.
"""

from collections.abc import Iterable

from contracts.batch_jobs import JOB_ID, BatchJob, BatchRequest, HandOver, kind_of
from contracts.codec import decode_json
from contracts.errors import Undecodable
from contracts.settings import KafkaSettings
from contracts.topics import Topics
from producers.kafka_client import IsStopped
from producers.log_reader import Found, LogReader


class Jobs:
    """The newest request and state of every job.

    Attributes:
        requests, jobs: by job id.
    """

    def __init__(self) -> None:
        self.requests: dict[str, BatchRequest] = {}
        self.jobs: dict[str, BatchJob] = {}

    def note(self, records: Iterable[Found]) -> None:
        """Take in records of the topic; foreign ones are passed over."""
        for record in records:
            kind = kind_of(record.key)
            if kind is None or record.value is None:
                continue
            try:
                payload = decode_json(record.value, kind)
            except Undecodable:
                continue
            if isinstance(payload, HandOver) or not JOB_ID.fullmatch(payload.id):
                # The id names files and folders: one such as `..` is nobody's who asks for a job.
                continue
            if isinstance(payload, BatchJob):
                self.jobs[payload.id] = payload
            else:
                self.requests.setdefault(payload.id, payload)

    @property
    def waiting(self) -> list[BatchRequest]:
        """Return the requests whose jobs are not over, the oldest first."""
        return [
            request
            for request in self.requests.values()
            if request.id not in self.jobs or not self.jobs[request.id].is_over
        ]


def read_jobs(kafka: KafkaSettings, is_stopped: IsStopped | None = None) -> Jobs:
    """Read the topic once.

    Raises:
        LogUnavailable: it cannot be read.
        Stopped: a stop came first.
    """
    jobs = Jobs()
    with LogReader(kafka, is_stopped) as reader:
        topic = Topics(kafka.topic_prefix).batch_jobs
        reader.begin({topic: ()})
        jobs.note(reader.to_the_end())
    return jobs
