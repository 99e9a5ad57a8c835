"""The jobs topic: what was asked for, and how far each job is.

Reads and writes: batch-jobs. Blocking: reads the topic, which is compacted and small.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from contracts.batch_jobs import (
    DENIED,
    JOB_ID,
    UNSEEN,
    BatchJob,
    BatchRequest,
    GivenUp,
    HandOver,
    HandOverPart,
    job_record,
    kind_of,
)
from contracts.codec import decode_json
from contracts.envelope import format_time
from contracts.errors import Undecodable
from contracts.settings import KafkaSettings, Settings
from contracts.topics import Topics
from producers.kafka_client import IsStopped
from producers.log_reader import Found, LogReader

_LIMIT_S = 15.0


class Jobs:
    """The newest request and state of every job.

    Attributes:
        requests, jobs: by job id.
        hand_overs: by id, those that are under way.
        given_up: what was given up, by the ARN of the job.
    """

    def __init__(self) -> None:
        self.requests: dict[str, BatchRequest] = {}
        self.jobs: dict[str, BatchJob] = {}
        self.hand_overs: dict[str, HandOver] = {}
        self.given_up: dict[str, GivenUp] = {}

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
            if isinstance(payload, HandOver | GivenUp):
                self._note_hand_over(payload)
                continue
            if not JOB_ID.fullmatch(payload.id):
                # The id names files and folders: one such as `..` is nobody's who asks for a job.
                continue
            if isinstance(payload, BatchJob):
                self.jobs[payload.id] = payload
            else:
                self.requests.setdefault(payload.id, payload)

    def _note_hand_over(self, payload: HandOver | GivenUp) -> None:
        if isinstance(payload, GivenUp):
            self.given_up[payload.job] = payload
        elif payload.state == "finished":
            self.hand_overs.pop(payload.id, None)
        else:
            self.hand_overs[payload.id] = payload

    def unseen(self) -> list[tuple[HandOver, HandOverPart]]:
        """Return the jobs of hand-overs that their provider does not know any more, or does not show to us."""
        states = self.hand_overs.values()
        return [(state, part) for state in states for part in state.parts.values() if part.status in {UNSEEN, DENIED}]

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


async def put_given_up(settings: Settings, wish: GivenUp, by: str) -> None:
    """Note that an operator has given up a job; raise LogUnavailable when the broker does not confirm it."""
    from producers.producer import KafkaProducer

    given_up = msgspec.structs.replace(wish, by=by, at=format_time(datetime.now(UTC)))
    producer = KafkaProducer(settings.kafka, settings.producer, client_id="penstock-batch", delivery_timeout_s=_LIMIT_S)
    await producer.start()
    try:
        await producer.produce(job_record(Topics(settings.kafka.topic_prefix), given_up))
    finally:
        await producer.aclose()
