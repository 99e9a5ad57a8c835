"""Every metric of every process: names, labels and buckets are a contract with dashboards and alerts.

Rules: prefix `penstock_`, base units, `_total` for counters, bounded labels only (configured names and slugs; never an
event id, a key, or text from outside). Source: Prometheus naming rules, checked by promtool in the tests.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric


class Registry(CollectorRegistry):
    """The metrics of a process.

    Attributes:
        before_reading: called before they are read.
    """

    def __init__(self) -> None:
        super().__init__(auto_describe=True)
        self.before_reading: list[Callable[[], None]] = []

    def collect(self) -> Iterable[Metric]:
        """Return every metric, up to date."""
        for bring_up_to_date in self.before_reading:
            bring_up_to_date()
        return super().collect()


REGISTRY = Registry()
ProcessCollector(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# OpenTelemetry GenAI: 0.01 .. 81.92 s, doubling.
_CALL = tuple(0.01 * 2**n for n in range(14))
_BATCH = tuple(float(2**n) for n in range(12))
_AGE = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 86400.0)


M = TypeVar("M", Counter, Gauge, Histogram)


class Children(dict[tuple[str, ...], M], Generic[M]):
    """A metric's children by their label values, looked up once: `labels()` costs more than the rest of an update.

    Only for metrics that are never cleared, and whose labels are bounded as the module says.
    """

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        """Make the child at its first use."""
        child: M = self._metric.labels(*values)
        self[values] = child
        return child


def _counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(f"penstock_{name}", text, labels, registry=REGISTRY)


# How several processes of one gateway make one value; the living ones, except of what outlives a process.
Across = Literal["livesum", "livemin", "livemax", "max"]


def _gauge(name: str, text: str, labels: Sequence[str] = (), across: Across = "livesum") -> Gauge:
    return Gauge(f"penstock_{name}", text, labels, registry=REGISTRY, multiprocess_mode=across)


def _histogram(name: str, text: str, labels: Sequence[str], buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"penstock_{name}", text, labels, buckets=buckets, registry=REGISTRY)


HTTP_REQUESTS = _counter("http_requests_total", "Requests answered by the gateway.", ("endpoint", "status"))
HTTP_DURATION = _histogram("http_request_duration_seconds", "Time from request to answer.", ("endpoint",), _FAST)
WEBHOOKS = _counter(
    "webhook_events_total",
    "Webhooks by what became of them: accepted, duplicate (accepted before), handshake, or the reason of the refusal.",
    ("source", "outcome"),
)
SIGNATURES_REFUSED = _counter(
    "webhook_signatures_refused_total", "Webhooks refused with 401, by private reason.", ("source", "detail")
)
KEY_LAST_USED = _gauge(
    "webhook_key_last_used_timestamp_seconds",
    "When a source's key last verified a webhook.",
    ("source", "key_id"),
    across="max",
)
SECRET_FETCHES = _counter(
    "secret_fetches_total",
    "Secrets asked for at AWS Secrets Manager: ok, or failed, and the old one stays.",
    ("outcome",),
)
CONFIG_RELOADS = _counter(
    "config_reloads_total",
    "Reloads by outcome: applied, unchanged, or refused, and what was there stays.",
    ("outcome",),
)
CONFIG_RELOADED_AT = _gauge(
    "config_last_reload_success_timestamp_seconds",
    "When configuration and secrets were last read and found good.",
    across="livemin",
)
CONFIG_REFUSED = _gauge(
    "config_reload_refused",
    "1 while what runs is older than what is configured, because that was refused.",
    across="livemax",
)
CONFIG_PENDING = _gauge(
    "config_restart_needed_settings", "Changed settings that only a restart takes over.", across="livemax"
)
KEY_FALLBACKS = _counter(
    "webhook_key_fallbacks_total", "Webhooks without their partition key field; their id stands in.", ("source",)
)
RATE_LIMITED = _counter(
    "webhook_rate_limited_total",
    "Webhooks refused with 429, by limit: source_events, source_bytes, peer_events, peer_bytes, bad_signatures (one "
    "more of them), suspect_bytes (unread, from an address that sends them).",
    ("source", "limit"),
)
CALLER_RATE_LIMITED = _counter(
    "caller_rate_limited_total",
    "Requests of API keys refused with 429, by limit: requests, events, bytes, in_flight_bytes, websockets.",
    ("key_id", "limit"),
)
CALLER_FORMER_KEYS = _counter("caller_former_keys_total", "Requests let in by a former value of a key.", ("key_id",))
BACKLOG_LAG = _gauge(
    "backpressure_lag_records",
    "Records that the workers are behind, for lanes with max_lag; keeps its last value while it cannot be read.",
    ("lane",),
    across="max",
)
BACKLOG_UNKNOWN = _gauge(
    "backpressure_lag_unknown",
    "1 while the lag of a lane with max_lag cannot be read; nobody is refused.",
    ("lane",),
    across="max",
)
BACKLOG_REFUSING = _gauge(
    "backpressure_refusing", "1 while a lane is refused because of its lag.", ("lane",), across="max"
)
DEDUP_DECISIONS = _counter(
    "dedup_decisions_total",
    "Accepted events by what the gateway knew of them: new, duplicate (no record was written), conflict (its id is "
    "known with another body), redelivery (wanted again), unknown. By source, or API key id.",
    ("source", "state"),
)
CLAIMS = _gauge("dedup_claims", "Accepted events that the gateway remembers to recognise repetitions.")
CLAIMS_BYTES = _gauge("dedup_claims_bytes", "Memory for them, estimated.")
CLAIMS_DROPPED = _counter(
    "dedup_claims_dropped_total", "Remembered events that were dropped: expired, or full (a limit).", ("reason",)
)
SYNC_WAITING = _gauge("sync_waiting_requests", "Requests that wait for an outcome: invocations and long polls.")
SYNC_ANSWERS = _counter(
    "sync_answers_total",
    "Invocations by their answer: succeeded, dead_letter or expired; 202 because of budget, predicted, requested or "
    "shutdown; or disconnected.",
    ("outcome",),
)
SYNC_JOINED = _counter("sync_joined_total", "Invocations that repeat a known event and wait for its outcome.")
REPLIES_SENT = _counter(
    "replies_total", "Outcomes copied to a waiting gateway, or not: sent, failed, bad_address.", ("outcome",)
)
INGRESS_MESSAGES = _counter(
    "ingress_messages_total",
    "Messages of a queue by what became of them: accepted, ignored, dead_letter, left, or repeated (deleted again, "
    "without a second event).",
    ("door", "outcome"),
)
INGRESS_IN_FLIGHT = _gauge("ingress_in_flight_messages", "Messages received and not deleted yet.", ("door",))
INGRESS_CALLS = _counter(
    "ingress_queue_calls_total",
    "Calls to a queue: receive, delete or extend; the outcome is ok, partial, or the error's reason.",
    ("door", "call", "outcome"),
)
INGRESS_DURATION = _histogram(
    "ingress_message_duration_seconds", "Time from receiving a message to its deletion.", ("door",), _FAST
)
BUILD_INFO = _gauge("build_info", "Constant 1; labels say what runs.", ("version", "component"), across="livemax")
LOG_LINES_UNWRITTEN = _counter(
    "log_lines_unwritten_total",
    "Log lines that could not be written to standard error: its disk is full, or nobody reads it any more.",
)
CLOCK_STEPS = _counter("clock_steps_total", "Times the machine's clock was set by two seconds or more.")
GATEWAY_PROCESSES = _gauge("gateway_processes", "Processes of this gateway that serve.")
GATEWAY_RESTARTS = _counter(
    "gateway_process_restarts_total", "Processes of this gateway that ended by themselves and were started again."
)

PRODUCED = _counter("producer_records_total", "Records confirmed by the broker, or failed.", ("topic", "outcome"))
PRODUCE_DURATION = _histogram(
    "producer_ack_duration_seconds", "Time from produce to the broker's ack.", ("topic",), _FAST
)
PRODUCER_BUFFER_BYTES = _gauge("producer_buffer_bytes", "Bytes of records waiting for their ack.")
PRODUCER_BUFFER_LIMIT = _gauge("producer_buffer_limit_bytes", "Limit of the same.")
PRODUCER_STALLED = _gauge(
    "producer_stalled",
    "1 while a topic's records are refused at once, because none was confirmed for gateway.ack_timeout_s.",
    ("topic",),
    across="livemax",
)
PRODUCER_STALLED_REFUSED = _counter(
    "producer_stalled_refused_total", "Records refused at once for that reason, by topic.", ("topic",)
)
PRODUCER_REBUILDS = _counter(
    "producer_rebuilds_total",
    "Clients given up after a fatal error (what waited was answered 503, or tried again), and failed tries to make "
    "another one.",
)

FM_REQUESTS = _counter(
    "fm_requests_total", "Model calls by outcome: ok or the error's reason.", ("provider", "model", "outcome")
)
FM_DURATION = _histogram("fm_request_duration_seconds", "Duration of model calls.", ("provider", "model"), _CALL)
FM_TOKENS = _counter(
    "fm_tokens_total",
    "Tokens as the provider counts them; type is input, output, cache_read or cache_write.",
    ("provider", "model", "type"),
)
FM_COST = _counter(
    "fm_cost_usd_total",
    "Cost by the configured price list; basis is reported, or possibly_billed (upper bound for failed calls).",
    ("provider", "model", "basis"),
)
FM_UNPRICED = _counter(
    "fm_unpriced_requests_total", "Calls whose model has no price configured.", ("provider", "model")
)
FM_INFLIGHT = _gauge("fm_inflight", "Model calls in flight.", ("provider",))
FM_CONCURRENCY_LIMIT = _gauge("fm_concurrency_limit", "Limit of model calls in flight.", ("provider",))
FM_QUEUE_DEPTH = _gauge("fm_queue_depth", "Events taken and not started.")
FM_QUEUE_WAIT = _histogram("fm_queue_wait_seconds", "Time from intake to the first model call.", ("route",), _CALL)
FM_BATCH_EVENTS = _histogram("fm_batch_events", "Events of one model call, for routes that batch.", ("route",), _BATCH)
FM_BATCH_SPLITS = _counter(
    "fm_batch_splits_total",
    "Calls for several events that were made again for fewer: the error's reason, or unmatched.",
    ("route", "reason"),
)
FM_TOKENS_SAVED = _counter(
    "fm_tokens_saved_total",
    "Input tokens that packing did not send again; an estimate by the share of the instructions in the prompt.",
    ("route",),
)
FM_RETRIES_DEFERRED = _counter(
    "fm_retries_deferred_total", "Retries that waited longer because the retry budget was used up.", ("route",)
)
FM_RETRIES = _counter("fm_retries_total", "Attempts that are to be repeated, by reason.", ("route", "reason"))

EVENTS_FINISHED = _counter("events_finished_total", "Events that reached their one outcome.", ("route", "outcome"))
EVENT_AGE = _histogram(
    "event_age_seconds", "Time from acceptance to the confirmed outcome.", ("route", "outcome"), _AGE
)
DEADLINE_MISSED = _counter(
    "event_deadline_missed_total", "Events that expired, by where: before_call, in_retry.", ("route", "stage")
)
CONTRACT_FAILURES = _counter(
    "output_contract_failures_total", "Answers that did not match their schema.", ("route", "reason")
)
PARKED = _counter(
    "events_parked_total", "Events put on the retry topic until their next attempt, by reason.", ("route", "reason")
)
DLQ_EVENTS = _counter("dlq_events_total", "Dead letters by reason.", ("route", "reason"))

DELTAS = _counter(
    "stream_deltas_total",
    "Deltas of streamed answers: confirmed, failed, or withheld where producing them was not possible or not allowed.",
    ("route", "outcome"),
)
FIRST_DELTA = _histogram(
    "stream_first_delta_seconds", "Time from acceptance to the first delta of a streamed event.", ("route",), _FAST
)
WATCHERS = _gauge("stream_watchers", "Connections that watch an event, by protocol: sse or websocket.", ("protocol",))
WATCHERS_LIMIT = _gauge("stream_watchers_limit", "Limit of the same.")
WEBSOCKETS = _gauge("stream_websockets", "WebSockets that are open, whether or not they watch an event.")
WEBSOCKETS_LIMIT = _gauge("stream_websockets_limit", "Limit of the same, fewer where the open files do not suffice.")
WATCHERS_ENDED = _counter(
    "stream_watchers_ended_total",
    "Watchers that ended: finished, left, slow (the client did not read), limit (too long), stopping, failed.",
    ("protocol", "outcome"),
)
STREAM_RESUMES = _counter(
    "stream_resumes_total", "Watchers that continued from a delta they had seen: continued or restarted.", ("outcome",)
)
STREAM_FIRST_TOKEN = _histogram(
    "stream_first_token_seconds", "Time from request to the first delta that was sent, of POST /v1/stream.", (), _FAST
)
CANCELS = _counter(
    "stream_cancels_total",
    "Wishes to cancel an event: asked, stopped (it was at work here), ended (too late).",
    ("outcome",),
)
DELTAS_FOLLOWED = _gauge("stream_tail_following", "1 while the gateway follows the topic of deltas.", across="livemin")
CATCH_UPS = _counter("stream_catch_ups_total", "Look-ups of earlier deltas on the log, by outcome.", ("outcome",))
DELIVERIES = _counter(
    "deliveries_total",
    "Deliveries by what became of them: delivered, or later or refused with the reason.",
    ("door", "outcome", "reason"),
)
DELIVERY_DURATION = _histogram("delivery_duration_seconds", "Duration of one delivery of a batch.", ("door",), _FAST)
DELIVERY_AGE = _histogram(
    "delivery_age_seconds", "Time from an outcome's record to its confirmed delivery.", ("door",), _AGE
)
DELIVERIES_PARKED = _counter(
    "deliveries_parked_total", "Deliveries put on a delay topic until their next attempt.", ("door", "reason")
)
UNDELIVERED = _counter(
    "undelivered_total", "Outcomes put on the undelivered topic: refused, or attempts used up.", ("door", "reason")
)
EGRESS_HELD = _gauge("egress_held_items", "Outcomes taken from the log and not settled.", ("door",))
EGRESS_INFLIGHT = _gauge("egress_inflight", "Deliveries in flight.", ("door",))
EGRESS_OLDEST = _gauge(
    "egress_oldest_undelivered_age_seconds",
    "Age of the oldest outcome taken and not settled, by its record.",
    ("door",),
)
EGRESS_LAG = _gauge("egress_lag_records", "Records behind the end of the topics that a door reads.", ("door",))
EGRESS_BREAKERS = _gauge("egress_breakers_open", "Destinations to which deliveries are stopped.", ("door",))
EGRESS_RESTARTS = _counter("egress_restarts_total", "Times a door was started again after a fault of ours.", ("door",))

LAG = _gauge(
    "kafka_consumer_lag_records", "Records behind the high watermark, unfinished ones included.", ("topic", "partition")
)
PAUSED = _gauge("kafka_intake_paused", "1 while intake is paused; reason says which limit or fault.", ("reason",))
COMMITTED = _gauge("kafka_committed_offset", "Last committed offset.", ("topic", "partition"))
LOST = _counter(
    "kafka_lost_records_total",
    "Records that a worker had read and that their broker has lost since: this many, or more.",
    ("topic",),
)
DELETED = _counter(
    "kafka_deleted_records_total",
    "Records that were deleted before a worker had read them, after their retention say: this many, or fewer.",
    ("topic",),
)
COMMITS = _counter("kafka_commits_total", "Offset commits.", ("outcome",))
HELD_EVENTS = _gauge("engine_held_events", "Events taken and not finished.")
HELD_BYTES = _gauge("engine_held_bytes", "Bytes of the same.")
OLDEST_UNFINISHED = _gauge("engine_oldest_unfinished_age_seconds", "Age since intake of the oldest unfinished event.")
ROUTE_PAUSED = _gauge("route_paused", "1 while a route waits for an operator or its provider.", ("route", "reason"))
REPEATED = _counter(
    "events_repeated_total",
    "Repetitions of earlier events: neither called nor paid for, marked as duplicates.",
    ("route",),
)
ID_CONFLICTS = _counter(
    "events_id_conflicts_total", "Events that came with the id of an earlier one and another body; they are done."
)
REMEMBERED = _gauge("engine_remembered_events", "Events that are remembered to recognise their repetitions.")
ANSWERS = _gauge("engine_remembered_answers", "Answers found at the assignment, of events that have not come yet.")
REPLAYED = _counter(
    "events_already_answered_total", "Redelivered events whose outcome was already on the result topic."
)
LOOP_LAG = _gauge("loop_lag_seconds", "How late the event loop runs its timers.", across="livemax")
LOOP_STALLS = _counter("loop_stalls_total", "Times the worker's event loop stood still for worker.watchdog.loop_lag_s.")
WATCHDOG = _gauge("watchdog_problem", "1 while a check of the worker's watchdog fails.", ("check",))
OLDEST_IN_STATE = _gauge(
    "engine_oldest_in_state_age_seconds",
    "Time since its last change of state of the event that has been longest in a state: queued, calling, resting, or "
    "settling.",
    ("state",),
)
EVENTS_IN_STATE = _gauge("engine_events_in_state", "Events taken and not finished, by what they are doing.", ("state",))
LAST_MOVE = _gauge("engine_last_move_timestamp_seconds", "When an event last started or ended in this worker.")

CALLBACKS = _counter(
    "callback_attempts_total",
    "Attempts to send a callback by what came of them: delivered, or a reason.",
    ("door", "outcome"),
)
CALLBACK_DISABLED = _gauge("callback_endpoint_disabled", "1 while an endpoint gets no callbacks.", ("door",))
CALLBACK_DURATION = _histogram(
    "callback_attempt_duration_seconds",
    "Time from the look-up of the name to the head of the answer.",
    ("door",),
    _FAST,
)

BATCH_JOBS_OPEN = _gauge("batch_jobs_open", "Batch jobs of S3 objects that were asked for and are not over.")
BATCH_OLDEST = _gauge(
    "batch_oldest_job_age_seconds", "Time since the oldest of these was asked for; 0 = there is none."
)
BATCH_JOBS = _counter("batch_jobs_total", "Batch jobs that ended here: finished, or failed for good.", ("outcome",))
BATCH_RESTS = _counter("batch_job_rests_total", "Times a failure that passes put a batch job off.", ("reason",))
BATCH_LAST = _gauge("batch_last_finished_timestamp_seconds", "When a batch job last finished here.")
HANDOVERS_OPEN = _gauge("handover_open", "Hand-overs to a batch API that are under way.")
HANDOVER_OLDEST = _gauge(
    "handover_oldest_age_seconds", "Time since the oldest of these was gathered; 0 = there is none."
)
HANDOVER_WAITING = _gauge(
    "handover_waiting_records",
    "Offsets of the hand-over topic that are in no hand-over yet; marks of transactions until read past.",
)
HANDOVER_RECORDS = _counter("handover_records_total", "Records of finished hand-overs, by outcome.", ("outcome",))
HANDOVER_RESTS = _counter("handover_rests_total", "Times a failure that passes put a hand-over off.", ("reason",))
HANDOVER_LAST = _gauge("handover_last_finished_timestamp_seconds", "When a hand-over last finished here.")
