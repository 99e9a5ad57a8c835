"""Puts a worker's report of its standstill into words: what is stuck, why, and what to do; pure."""

from typing import NamedTuple, assert_never

from contracts.stuck import PartitionState, StuckReport, UnfinishedEvent
from gateways.cli.wording import printable

_HINTS = {
    "calling": "nothing yet: the call ends by itself at the route's attempt_timeout_s; is the provider answering?",
    "resting": "nothing yet: it is tried again by itself; the provider's errors are in the worker's log",
    "settling": "Kafka: are the brokers of the result topics up and in sync? `penstock topics verify`",
    "waiting_slot": "more worker.max_in_flight or more workers, if calls are not throttled",
    "waiting_key": "a finer key of the source, or order: none on the route, if order does not matter",
}
_BROKER = (
    "the broker that leads this partition, its log and its disk: `penstock topics verify`. The worker goes on by "
    "itself; where the brokers are sound, restart it, and keep its log"
)
_PROBLEM_HINTS = {
    "loop": "something blocks the event loop: the line loop.stuck of the worker's log says where; more CPU",
    "kafka": "the brokers: the worker goes on by itself when they answer",
    "partition": _BROKER,
    "watch": "the worker's log: what went wrong is not the worker's own work, but nobody watches it now",
}
_RESTART = "restart this worker, and keep its log"
# Why a partition's records are not read, by the check of the watchdog that will say so; and what to do.
_STANDS = {
    "partition": ("its broker gives none", _BROKER),
    "untaken": ("they are fetched, and not taken although there is room", _RESTART),
}
# What an operator does about a paused route, by reason; others are the provider being out.
_PAUSED_HINTS = {
    "access_denied": "credentials or policy of the provider; then it goes on by itself, after a change of `api_key` "
    "with a restart of the workers",
    "model_not_found": "models.<alias>.model, region or URL of the provider; then restart the workers",
    "quota_exhausted": "raise the quota, or point the model alias at another model",
    "unknown_host": "base_url, endpoint_url or region of the provider, or the name servers; the worker's log names the "
    "host. It goes on by itself, after a change of the configuration with a restart of the workers",
    "certificate_refused": "the provider's certificate, `ca_file`, or the clock; the worker's log says what is wrong. "
    "It goes on by itself, after a change of the configuration with a restart of the workers",
    "dead_letter_ratio": "`penstock dlq list` says what the events ended with; it goes on when one succeeds",
}
_PASSES = (
    "wait: one call is tried again every 30 s at the latest; what the provider says is in the worker's log, in the "
    "lines inference.attempted"
)


class Finding(NamedTuple):
    """What is to be said of a partition or worker: stuck or not, or unknown since long, why, and what to do."""

    is_stuck: bool
    text: str
    hint: str = ""
    is_unknown: bool = False


def of_worker(report: StuckReport, older_than_s: float) -> list[Finding]:
    """Return what holds for the worker as a whole; empty when nothing does."""
    found = [
        Finding(
            True,
            f"{problem.check}: {problem.detail}, for {problem.for_s:.0f} s",
            _RESTART if problem.restart_helps and problem.check != "loop" else _PROBLEM_HINTS.get(problem.check, ""),
        )
        for problem in report.problems
    ]
    found += [
        Finding(True, f"{_routes(report, reason)} paused: {reason}", _PAUSED_HINTS.get(reason, _PASSES))
        for reason in dict.fromkeys(paused.reason for paused in report.paused_routes)
    ]
    if report.state != "working":
        # A rebalance takes seconds; only one that lasts is worth a look.
        is_long = bool(report.waits_for) or report.idle_s > older_than_s
        found.append(Finding(is_long, f"the worker is {report.state}" + _list(report.waits_for)))
    if report.lease == "stale":
        found.append(Finding(True, "the lease is stale: no good heartbeat lately, so nothing is started or written",
                             "Kafka, or the network to it"))  # fmt: skip
    return found


def _routes(report: StuckReport, reason: str) -> str:
    """Name the routes that are paused for one reason: a model that is out pauses all of its routes."""
    names = [paused.route for paused in report.paused_routes if paused.reason == reason]
    return f"route {names[0]} is" if len(names) == 1 else f"routes {', '.join(names)} are"


def _list(waits_for: tuple[str, ...]) -> str:
    return f", and waits: {'; '.join(waits_for)}" if waits_for else ""


def of_partition(report: StuckReport, partition: PartitionState, older_than_s: float) -> Finding:
    """Return what holds back a partition's commit."""
    oldest = partition.oldest
    is_known = partition.position is not None and partition.end is not None
    unread = (partition.end or 0) - (partition.position or 0) if is_known else 0
    if partition.stands_s > older_than_s and (oldest is None or oldest.age_s <= older_than_s):
        if unread <= 0:
            text = (
                f"it is not known whether records are unread, for {partition.stands_s:.0f} s: its broker does not tell"
            )
            return Finding(False, text, _BROKER, is_unknown=True)
        why, hint = _STANDS.get(partition.stands_by, (partition.stands_by, "the log of the worker"))
        return Finding(True, f"{unread} records are not read, for {partition.stands_s:.0f} s: {why}", hint)
    if oldest is None:
        if partition.untaken:
            is_stuck = report.state == "working" and report.idle_s > older_than_s
            return Finding(is_stuck, f"{partition.untaken} offsets are read and not taken", _RESTART)
        if not is_known:
            return Finding(False, "nothing is held; its place or its end is not known yet")
        return Finding(False, f"{unread} records are still to be read" if unread > 0 else "everything read is finished")
    pause = next((one for one in report.paused_routes if one.route == oldest.route), None)
    hint = "the paused route above" if pause else _HINTS[oldest.state]
    return Finding(oldest.age_s > older_than_s, f"{_name(oldest)} {_doing(oldest)}", hint)


def _name(event: UnfinishedEvent) -> str:
    key = "no key" if event.key is None else f"key {event.key}"
    return printable(f"event {event.event_id} ({key}, route {event.route}, offset {event.offset})")


def _doing(event: UnfinishedEvent) -> str:
    attempt = f"attempt {event.attempts}, " if event.attempts else ""
    left = ""
    if event.deadline_s is not None:
        left = f"; expires in {event.deadline_s:.0f} s" if event.deadline_s > 0 else "; its deadline has passed"
    return f"{_state(event)} ({attempt}for {event.state_s:.0f} s, taken {event.age_s:.0f} s ago{left})"


def _state(event: UnfinishedEvent) -> str:
    match event.state:
        case "waiting_slot":
            return "waits for a free slot"
        case "waiting_key":
            return f"waits behind the event at offset {event.behind_offset} of its key"
        case "calling":
            return "is in a model call"
        case "resting":
            next_try = (
                f"next attempt in {event.next_try_s:.0f} s" if event.next_try_s is not None else "until it passes"
            )
            return f"rests because of {event.reason or 'a fault'}, {next_try}"
        case "settling":
            return "has its outcome, and waits for the broker's ack"
        case _:
            assert_never(event.state)
