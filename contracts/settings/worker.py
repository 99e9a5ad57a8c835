"""The worker: how much it does at a time, and how it behaves in its consumer group."""

from typing import Annotated

from pydantic import Field, model_validator

from contracts.settings.section import GroupName, Lane, ListenHost, Port, Seconds, Section
from contracts.settings.watchdog import WatchdogSettings

# Measured: with a drain longer than the rebalance timeout two workers kick each other out for ever; 0.6 holds
# (docs/faust.md).
DRAIN_SHARE_OF_REBALANCE = 0.6
# Kafka's protocol has milliseconds of 32 bits for both.
MAX_GROUP_TIMEOUT_S = 2_147_483
# After the drain: leaving the group, closing clients. Longer than that is a hang, and nobody should wait.
_CLOSING_S = 15.0


class WorkerSettings(Section):
    """Limits and group membership of one worker process."""

    app_id: GroupName = "penstock"
    """Consumer group, and the name under which results say who made them."""
    instance_id: GroupName | None = None
    """Static membership: stable and unique per process (a pod name); a restart is then no rebalance. A second live
    worker with the same id is refused."""
    lanes: tuple[Lane, ...] = Field(default=("interactive", "standard", "bulk"), min_length=1)
    """Lanes this worker serves; besides them it always takes up what waits on the retry topic."""
    max_in_flight: int = Field(default=64, ge=1, le=8192)
    """Model calls at a time."""
    max_ready_keys: int | None = Field(default=None, ge=1)
    """Lookahead: intake pauses while this many keys are ready to run; twice max_in_flight when absent."""
    max_held_events: int | None = Field(default=None, ge=1)
    """Events taken and not finished, an eighth reserved per lane; max(1000, 20 * max_in_flight) when absent."""
    max_held_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """Bytes of events taken and not finished, an eighth reserved per lane."""
    max_uncommitted: int = Field(default=100_000, ge=100)
    """Offsets a partition may run ahead of its oldest unfinished event; bounds what a restart has to look through, and
    some 130 bytes of memory for each. Above rate x deadline per partition a straggler never stops the intake: 100,000
    are 330 events/s of one partition for the default deadline of 300 s."""
    max_remembered: int = Field(default=20_000, ge=0)
    """Accepted events that are remembered to recognise their repetitions, all partitions together; some 290 bytes of
    memory for each, and so many records are read again when partitions are assigned. 0: none."""
    max_answers: int = Field(default=1_000_000, ge=1000)
    """Answers found at an assignment that are kept until their events come, all partitions together, some 22 bytes of
    memory for each; a partition may have max_uncommitted in any case. Where there are more, as after a loss of the
    commits, the worker joins the group anew for the next ones."""
    tenant_weights: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """Shares of tenants within a lane, by API key id or source; 1 for those not named. A lane's free slots go to
    tenants in proportion to their weights, and within a tenant to the earliest deadline."""
    commit_interval_s: Seconds = 1.0
    """How often finished offsets are committed."""
    session_timeout_s: float = Field(default=15.0, gt=0, le=MAX_GROUP_TIMEOUT_S)
    """A worker silent for this long loses its partitions. Outside of what a broker allows, 6 to 1,800 s
    (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`), it refuses the worker (`group.refused`)."""
    rebalance_timeout_s: float = Field(default=90.0, gt=0, le=MAX_GROUP_TIMEOUT_S)
    """How long the group waits for a worker to hand over."""
    drain_timeout_s: Seconds = 50.0
    """How long calls in flight may finish when partitions are given up or on SIGTERM; at most 0.6 of
    rebalance_timeout_s."""
    health_host: ListenHost = "127.0.0.1"
    """Address of /healthz, /readyz, /stuck and /metrics; 0.0.0.0 in a container."""
    health_port: Port = 8081
    """Port of the same; 0 = any free one, printed at start."""
    watchdog: WatchdogSettings = WatchdogSettings()
    """After how long a standstill is a fault."""

    @model_validator(mode="after")
    def _drain_fits(self) -> "WorkerSettings":
        if self.drain_timeout_s > DRAIN_SHARE_OF_REBALANCE * self.rebalance_timeout_s:
            message = (
                f"drain_timeout_s ({self.drain_timeout_s:g}) must be at most {DRAIN_SHARE_OF_REBALANCE} of "
                f"rebalance_timeout_s ({self.rebalance_timeout_s:g}): a longer drain can livelock the group"
            )
            raise ValueError(message)
        return self

    @property
    def stop_limit_s(self) -> float:
        """Return how long a stop takes at most; after that the worker ends hard by itself."""
        return self.drain_timeout_s + _CLOSING_S

    @property
    def ready_keys_limit(self) -> int:
        """Return the lookahead in distinct ready keys."""
        return self.max_ready_keys or 2 * self.max_in_flight

    @property
    def held_events_limit(self) -> int:
        """Return the limit of events taken and not finished (measured: 20 N keeps 1,024 in flight busy)."""
        return self.max_held_events or max(1000, 20 * self.max_in_flight)
