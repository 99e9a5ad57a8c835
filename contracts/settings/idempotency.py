"""Recognising a sender's repetitions: how long, by what, and what passes although it is one."""

from typing import Literal

from pydantic import Field

from contracts.settings.secrets import SecretRef
from contracts.settings.section import Seconds, Section

# The longest retry horizon among known senders is three days (Stripe, GitHub's manual redelivery).
WINDOW_S = 72 * 3600.0


class IdempotencySettings(Section):
    """How a source's repetitions are recognised; `tolerance_s` is about the sender's clock, and another thing."""

    by: Literal["auto", "id", "digest", "none"] = "auto"
    """id: the event's id and its body. digest: the body alone, whatever the id is. auto: id where the signature covers
    it, else digest, as for GitHub and Shopify, whose id anybody could change; none for scheme microsoft-graph without
    an `id`. none: every delivery is an event."""
    window_s: Seconds = WINDOW_S
    """How long after the first delivery a repetition is recognised at most; as long as the sender repeats. At least
    twice the tolerance of the sender's time, which may lie in the future."""
    redelivery_secret: SecretRef | None = None
    """Reference to a secret (16 bytes or more). A delivery that carries it in the header `penstock-redelivery` is an
    event of its own, though its id is known: for operators. Absent: no delivery of this source is."""


class IdempotencyTable(Section):
    """What one gateway process remembers of accepted events; the workers decide in the end."""

    max_entries: int = Field(default=100_000, ge=0)
    """Events at most; the oldest go first. 0: nothing is remembered here."""
    max_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """Memory for them at most."""
    window_s: Seconds = WINDOW_S
    """How long an id of an API caller (Idempotency-Key, ce-id) is recognised at most."""
