"""The whole configuration, and what must fit together across sections."""

from collections.abc import Collection, Iterator
from typing import Any, Literal

from pydantic import Field

from contracts.settings import batches
from contracts.settings.batch_api import HandOverProcess
from contracts.settings.batch_jobs import BatchJobSettings, BatchProcess
from contracts.settings.egress import MAX_DRAIN_S, CallerCallbackDoor, DoorSettings, EgressProcess
from contracts.settings.gateway import GatewaySettings
from contracts.settings.ingress import IngressDoor, IngressProcess, LambdaDoor
from contracts.settings.kafka import KafkaSettings, ProducerSettings
from contracts.settings.logging import LogSettings
from contracts.settings.models import ModelSettings, OpenAIProvider, ProviderSettings
from contracts.settings.routes import RouteSettings
from contracts.settings.secrets import Name, references
from contracts.settings.secrets_manager import SecretsManagerSettings
from contracts.settings.section import Section
from contracts.settings.sources import SourceSettings
from contracts.settings.worker import WorkerSettings

Path = tuple[str | int, ...]
# Of an API key: what the gateway reads. Its callbacks are signed by `penstock egress`.
_CALLERS_KEYS = ("key", "former_keys")


class Settings(Section):
    """Everything in `penstock.yaml`."""

    version: Literal[1]
    """Version of this file's format."""
    kafka: KafkaSettings = KafkaSettings()
    """The brokers."""
    producer: ProducerSettings = ProducerSettings()
    """The producer of every process."""
    gateway: GatewaySettings = GatewaySettings()
    """The HTTP door."""
    sources: dict[Name, SourceSettings] = Field(default_factory=dict)
    """Webhook senders by name; the name is the last part of the URL."""
    ingress: dict[Name, IngressDoor] = Field(default_factory=dict)
    """Queues whose messages become events, by name; run by `penstock ingress`."""
    ingress_process: IngressProcess = IngressProcess()
    """The process that runs them."""
    lambda_door: LambdaDoor = LambdaDoor()
    """Webhooks through an AWS Lambda function."""
    providers: dict[Name, ProviderSettings] = Field(default_factory=dict)
    """Who serves models, by name."""
    models: dict[Name, ModelSettings] = Field(default_factory=dict)
    """Model aliases by name."""
    routes: tuple[RouteSettings, ...] = ()
    """Routes, first match wins."""
    worker: WorkerSettings = WorkerSettings()
    """The worker process."""
    egress: dict[Name, DoorSettings] = Field(default_factory=dict)
    """Doors out, by name: where terminal records are delivered to."""
    egress_process: EgressProcess = EgressProcess()
    """The process that runs the doors out, `penstock egress`."""
    batch_jobs: BatchJobSettings = BatchJobSettings()
    """Batch jobs: JSON lines in, one line of result for each out."""
    batch_process: BatchProcess = BatchProcess()
    """The process that works on announced objects, `penstock batch serve`."""
    hand_over_process: HandOverProcess = HandOverProcess()
    """The process that hands events over to a provider's batch API, `penstock hand-over`."""
    secrets_manager: SecretsManagerSettings = SecretsManagerSettings()
    """Secrets that lie in AWS Secrets Manager."""
    logging: LogSettings = LogSettings()
    """Log lines."""

    def secret_places(self, program: str, doors: Collection[str] = ()) -> list[Path]:
        """Return the places below which a program reads every secret at its start, but for that of Kafka.

        Args:
            program: gateway, lambda, worker or egress; the others read none.
            doors: those that `penstock egress` runs; all when empty.
        """
        keys = range(len(self.gateway.api_keys))
        match program:
            case "gateway":
                tickets: list[Path] = [("gateway", "ticket_secret"), ("gateway", "former_ticket_secrets")]
                callers: list[Path] = [("gateway", "api_keys", index, name) for index in keys for name in _CALLERS_KEYS]
                return [("sources",), *tickets, *callers]
            case "lambda":
                return [("sources",)]
            case "worker":
                return [("providers", self.models[route.model].provider) for route in self.routes]
            case "egress":
                chosen = [name for name in self.egress if not doors or name in doors]
                calls = any(isinstance(self.egress[name], CallerCallbackDoor) for name in chosen)
                signed: list[Path] = [("gateway", "api_keys", index, "callbacks") for index in keys] if calls else []
                return [*(("egress", name) for name in chosen), *signed]
        return []

    def misfits(self) -> Iterator[tuple[Path, Any, str]]:
        """Yield what does not fit together: where, what was found, what is allowed."""
        for name, provider in self.providers.items():
            if isinstance(provider, OpenAIProvider) and provider.proxy and provider.transport == "lean":
                yield ("providers", name, "transport"), "lean", "auto or aiohttp, since proxy is set"
        for alias, model in self.models.items():
            if model.provider not in self.providers:
                yield ("models", alias, "provider"), model.provider, _one_of("a provider", self.providers)
                continue
            for field, found, allowed in batches.task_misfits(model, self.providers[model.provider]):
                yield ("models", alias, field), found, allowed
        for index, route in enumerate(self.routes):
            if route.model not in self.models:
                yield ("routes", index, "model"), route.model, _one_of("a model alias", self.models)
            if any(route.name == earlier.name for earlier in self.routes[:index]):
                yield ("routes", index, "name"), route.name, "a name no other route has"
            yield from self._model_misfits(index, route)
        yield from ((("kafka", key), found, allowed) for key, found, allowed in self.kafka.misfits())
        yield from self._key_misfits()
        yield from self._secret_misfits()
        yield from self._door_misfits()
        yield from self._drain_misfits()
        for path, found, allowed in self.batch_jobs.misfits():
            yield ("batch_jobs", *path), found, allowed

    def _door_misfits(self) -> Iterator[tuple[Path, Any, str]]:
        """Yield what of the doors does not fit together."""
        limit_s = self.ingress_process.drain_timeout_s
        for name, door in self.ingress.items():
            if door.wait_s >= limit_s:
                yield (
                    ("ingress", name, "wait_s"),
                    door.wait_s,
                    f"less than ingress_process.drain_timeout_s, {limit_s:g}",
                )
            if door.batch_jobs and door.envelope not in {"s3", "eventbridge"}:
                yield ("ingress", name, "envelope"), door.envelope, "s3 or eventbridge, since batch_jobs is true"
            if door.batch_jobs and not self.batch_jobs.inputs:
                yield ("ingress", name, "batch_jobs"), True, "false, or sections under batch_jobs.inputs"
        if self.lambda_door.target == "sqs" and not self.lambda_door.queue_url:
            yield ("lambda_door", "queue_url"), None, "the queue's URL, since target is sqs"
        if self.lambda_door.source and self.lambda_door.source not in self.sources:
            yield ("lambda_door", "source"), self.lambda_door.source, _one_of("a source", self.sources)

    def _drain_misfits(self) -> Iterator[tuple[Path, Any, str]]:
        """Yield what would make a door out drain for longer than its group can wait."""
        drain_s = self.egress_process.drain_timeout_s
        for name, door in self.egress.items():
            if drain_s + door.timeout_s > MAX_DRAIN_S:
                places: list[tuple[Path, float]] = [
                    (("egress_process", "drain_timeout_s"), drain_s),
                    (("egress", name, "timeout_s"), door.timeout_s),
                ]
                (path, found), (other, also) = sorted(places, key=lambda place: place[1], reverse=True)
                allowed = f"at most {MAX_DRAIN_S:g} together with {'.'.join(map(str, other))}, {also:g}"
                yield path, found, allowed

    def _key_misfits(self) -> Iterator[tuple[Path, Any, str]]:
        if self.gateway.former_ticket_secrets and self.gateway.ticket_secret is None:
            yield ("gateway", "former_ticket_secrets"), "a list", "nothing, as long as ticket_secret is absent"
        for index, key in enumerate(self.gateway.api_keys):
            if any(key.id == earlier.id for earlier in self.gateway.api_keys[:index]):
                yield ("gateway", "api_keys", index, "id"), key.id, "an id no other key has"

        doors = [name for name, door in self.egress.items() if isinstance(door, CallerCallbackDoor)]
        for name in doors[1:]:
            yield ("egress", name, "kind"), "caller-callback", f"one door of this kind; there is {doors[0]} already"
        for index, key in enumerate(self.gateway.api_keys):
            if key.callbacks is not None and not doors:
                allowed = "nothing, as long as no door of kind caller-callback is configured under egress"
                yield ("gateway", "api_keys", index, "callbacks"), "a section", allowed

    def _secret_misfits(self) -> Iterator[tuple[Path, Any, str]]:
        """Yield references to AWS Secrets Manager where nobody would fetch them."""
        for path, secret in references(self):
            has_place = path[0] == "sources" or (path[:2] == ("gateway", "api_keys") and path[3] in _CALLERS_KEYS)
            if secret.kind == "aws-sm" and not has_place:
                allowed = "env:NAME or file:PATH; aws-sm: is for sources and the keys of gateway.api_keys"
                yield path, secret.reference, allowed

    def _model_misfits(self, index: int, route: RouteSettings) -> Iterator[tuple[Path, Any, str]]:
        """Yield what of a route does not fit its model."""
        model = self.models.get(route.model)
        provider = self.providers.get(model.provider) if model else None
        if model is None or provider is None:
            return
        has_system = bool(route.prompt.system or route.prompt.system_file)
        if model.task == "embedding" and has_system:
            key = "system" if route.prompt.system else "system_file"
            allowed = "nothing: an embedding model reads the user prompt alone"
            yield ("routes", index, "prompt", key), getattr(route.prompt, key), allowed
        has_schema = route.output_schema is not None or route.output_schema_file is not None
        limit = self.worker.max_in_flight
        patience_s = min(route.attempt_timeout_s, route.deadline_s)
        for key, found, allowed in batches.misfits(
            route.batch, model, provider, has_schema=has_schema, max_in_flight=limit, patience_s=patience_s
        ):
            yield ("routes", index, "batch", key), found, allowed


def _one_of(what: str, names: dict[str, Any]) -> str:
    return f"{what}: {', '.join(sorted(names))}" if names else f"{what}; none is configured"
