"""The worker's watchdog: after how long a standstill counts as a fault."""

from contracts.settings.section import Seconds, Section


class WatchdogSettings(Section):
    """Limits after which /healthz fails, where only a restart helps; see docs/operations.md, "Is it stuck?"."""

    rebalance_grace_s: Seconds = 30.0
    """Beyond worker.rebalance_timeout_s: how long the worker may be without a valid place in its group."""
    journal_timeout_s: Seconds = 120.0
    """How long the commits and results of assigned partitions may take to load while no further result is read."""
    progress_timeout_s: Seconds = 300.0
    """How long events may wait while none starts, none ends, and nothing explains it; and how long a partition with
    unread records may stand."""
    overdue_grace_s: Seconds = 30.0
    """Beyond 1.5 times attempt_timeout_s for a call, and beyond the deadline for an event that rests."""
    commit_timeout_s: Seconds = 120.0
    """How long finished offsets may stay uncommitted while the group answers."""
    consumer_timeout_s: Seconds = 30.0
    """How long the thread that speaks to Kafka may not react."""
    loop_lag_s: Seconds = 5.0
    """How late the event loop may be; its stack is logged then."""
