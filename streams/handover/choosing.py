"""Decides which record goes to a batch API, and what is asked there: the same steps as a worker's.

Reads: nothing. Writes: nothing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from contracts.batch_jobs import Asked
from contracts.codec import RETRY, Position
from contracts.errors import ConfigError, PenstockError
from contracts.payloads import InferenceRequest, Reasoning
from contracts.settings import BedrockProvider, ModelSettings, RouteSettings, Settings
from contracts.settings.batch_api import BatchApi
from producers.log_reader import Found
from streams.job import Job, is_for_another, make_job
from streams.parking import take_up
from streams.providers.bedrock_jobs import BedrockJobs
from streams.steps.invoke import prices_usd
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
class Reading:
    """How answers to a route's events are read, whoever was asked."""

    route: RouteSettings
    template: PromptTemplate
    contract: OutputContract
    reasoning: Reasoning


@dataclass(frozen=True)
class Api:
    """A provider's batch API: its settings, and its jobs."""

    batch: BatchApi
    jobs: BedrockJobs


@dataclass(frozen=True)
class Way(Reading, Api):
    """A route whose model has a batch API."""

    model: ModelSettings


class Ways:
    """Every route, by whether its events may be handed over.

    Args:
        settings: the whole configuration.

    Attributes:
        apis: by the name of the provider's section; also those that no route uses any more, where jobs may still run.
        readings: of every route.
        by_route, by_alias: what is handed over now.

    Raises:
        ConfigError: no provider has a batch API, or a prompt or schema cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._router = Router(settings.routes)
        self._app_id = settings.worker.app_id
        self._models = settings.models
        self.apis = {
            name: Api(provider.batch_api, BedrockJobs(provider, provider.batch_api))
            for name, provider in settings.providers.items()
            if isinstance(provider, BedrockProvider) and provider.batch_api is not None
        }
        if not self.apis:
            message = "no provider has batch_api: there is nothing to hand over"
            raise ConfigError(message)
        self.readings = {route.name: self._reading(route) for route in settings.routes}
        self.by_route = {name: way for name, one in self.readings.items() if (way := self._way(one))}
        self.by_alias = {way.route.model: way for way in self.by_route.values()}

    def close(self) -> None:
        """Close the connections."""
        for api in self.apis.values():
            api.jobs.close()

    def _reading(self, route: RouteSettings) -> Reading:
        template, model = PromptTemplate(route.prompt, route.name), self._models[route.model]
        return Reading(route, template, OutputContract(route, model.task), model.reasoning)

    def _way(self, reading: Reading) -> Way | None:
        model = self._models[reading.route.model]
        api = self.apis.get(model.provider)
        if api is None or model.task != "chat":
            return None
        return Way(api.batch, api.jobs, reading.route, reading.template, reading.contract, reading.reasoning, model)

    def asked(self, alias: str) -> Asked:
        """Return what a job for a model alias asks as it is configured now.

        Raises:
            ConfigError: it has no batch API.
        """
        model = self._models.get(alias)
        api = self.apis.get(model.provider) if model else None
        if model is None or api is None:
            message = f"model alias {alias}, for which a job was, has no batch_api any more"
            raise ConfigError(message)
        price = model.price
        return Asked(
            provider=model.provider,
            model=model.model,
            prices_usd=prices_usd(price) if price else None,
            price_share=api.batch.price_share,
            prompts=self.prompts(alias),
        )

    def prompts(self, alias: str) -> dict[str, str]:
        """Return the digests of the prompts for a model alias by route."""
        return {name: way.template.digest for name, way in self.by_route.items() if way.route.model == alias}

    def jobs(self, asked: Asked, alias: str) -> BedrockJobs:
        """Return where a job is that asks so; a section that has another name now is looked for by the alias.

        Raises:
            ConfigError: its provider has no batch API any more.
        """
        model = self._models.get(alias)
        api = self.apis.get(asked.provider) or (self.apis.get(model.provider) if model else None)
        if api is None:
            message = f"provider {asked.provider}, where a job is, has no batch_api any more"
            raise ConfigError(message)
        return api.jobs

    def job(self, record: Found) -> Job:
        """Decode a record: an event, or one that a worker parked here."""
        position = position_of(record)
        if record.pairs and record.pairs[-1][0] == RETRY:
            return take_up(position, record.key, record.value, list(record.pairs), self._app_id, self._router)
        job = make_job(position, record.key, record.value, list(record.pairs), self._router)
        job.is_foreign = is_for_another(record.pairs, self._app_id)
        return job

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
