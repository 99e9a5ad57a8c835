"""Decides which record goes to a batch API, and what is asked there: the same steps as a worker's.

Reads: nothing. Writes: nothing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from contracts.codec import RETRY, Position
from contracts.errors import ConfigError, PenstockError
from contracts.payloads import InferenceRequest
from contracts.settings import BedrockProvider, ModelSettings, RouteSettings, Settings
from contracts.settings.batch_api import BatchApi
from producers.log_reader import Found
from streams.job import Job, make_job
from streams.parking import take_up
from streams.providers.bedrock_jobs import BedrockJobs
from streams.steps.prompt import PromptTemplate
from streams.steps.route import Router
from streams.steps.validate import OutputContract

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Bedrock's own example of a recordId has 11 letters and digits: three for the partition, eight for the offset.
_PARTITION_CHARS, _OFFSET_CHARS = 3, 8


def record_id(partition: int, offset: int) -> str:
    """Return the record id of a place on the hand-over topic: no table is needed to find the event again."""
    return _base36(partition, _PARTITION_CHARS) + _base36(offset, _OFFSET_CHARS)


def _base36(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
    return text


@dataclass(frozen=True)
class Way:
    """A route whose model has a batch API."""

    route: RouteSettings
    template: PromptTemplate
    contract: OutputContract
    model: ModelSettings
    batch: BatchApi
    jobs: BedrockJobs


class Ways:
    """Every route, by whether its events may be handed over.

    Args:
        settings: the whole configuration.

    Raises:
        ConfigError: no route's model has a batch API, or a prompt or schema cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._router = Router(settings.routes)
        self._app_id = settings.worker.app_id
        self._jobs: dict[str, BedrockJobs] = {}
        self.by_route = {route.name: way for route in settings.routes if (way := self._way(settings, route))}
        if not self.by_route:
            message = "no route uses a model of a provider with batch_api: there is nothing to hand over"
            raise ConfigError(message)
        self.by_alias = {way.route.model: way for way in self.by_route.values()}

    def close(self) -> None:
        """Close the connections."""
        for jobs in self._jobs.values():
            jobs.close()

    def _way(self, settings: Settings, route: RouteSettings) -> Way | None:
        model = settings.models[route.model]
        provider = settings.providers[model.provider]
        if not isinstance(provider, BedrockProvider) or provider.batch_api is None or model.task != "chat":
            return None
        jobs = self._jobs.setdefault(model.provider, BedrockJobs(provider, provider.batch_api))
        contract, template = OutputContract(route, model.task), PromptTemplate(route.prompt, route.name)
        return Way(route, template, contract, model, provider.batch_api, jobs)

    def job(self, record: Found) -> Job:
        """Decode a record: an event, or one that a worker parked here."""
        position = position_of(record)
        if record.pairs and record.pairs[-1][0] == RETRY:
            return take_up(position, record.key, record.value, list(record.pairs), self._app_id, self._router)
        return make_job(position, record.key, record.value, list(record.pairs), self._router)

    def line(self, job: Job, name: str) -> tuple[Way, bytes] | None:
        """Return what a record asks of a batch API; None when a worker has to deal with it."""
        way = self.by_route.get(job.route_name)
        if way is None or job.fault is not None or job.attempts:
            return None
        if job.deadline_at - datetime.now(UTC) < timedelta(seconds=way.batch.min_time_left_s):
            return None
        try:
            messages = way.template.render(job.event)
        except PenstockError:
            # The worker meets the same, and buries it with what belongs to that.
            return None
        request = InferenceRequest(
            event_id=job.event.id,
            model=way.model.model,
            messages=messages,
            system=way.template.system,
            max_tokens=way.model.max_tokens,
            temperature=way.model.temperature,
            output_schema=way.contract.schema,
        )
        return way, way.jobs.line(name, request)


def position_of(record: Found) -> Position:
    """Return where a record lies."""
    return Position(record.topic, record.partition, record.offset, record.timestamp_ms)
