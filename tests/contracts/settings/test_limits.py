"""What fits together, or into what a client can be told, is found by `config check`, and not by the client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from contracts.errors import ConfigError
from contracts.settings import Settings, build, parse
from contracts.settings.section import Section

DOOR = "egress:\n  out: {kind: sqs, region: r, queue_url: 'https://q/1', timeout_s: %g}\n"
CALLBACK = "egress:\n  out: {kind: caller-callback, timeout_s: 100, attempt_timeout_s: %g}\n"


def _load(text: str) -> Settings:
    return build(parse(f"version: 1\n{text}", "f"), {}, Path())


@pytest.mark.parametrize("key", ["session_timeout_s", "rebalance_timeout_s"])
def test_a_timeout_of_the_group_fits_into_the_protocol(key: str) -> None:
    """Kafka has 2^31 - 1 milliseconds."""
    assert getattr(_load(f"worker: {{{key}: 2147483, drain_timeout_s: 1}}").worker, key) * 1000 < 2**31
    with pytest.raises(ConfigError) as caught:
        _load(f"worker: {{{key}: 2147484, drain_timeout_s: 1}}")

    assert str(caught.value) == f"f:2: worker.{key}: must be 2147483 or less; found 2147484"


def test_a_group_can_wait_for_a_drain_of_a_day_at_most() -> None:
    assert _load("egress_process: {drain_timeout_s: 80000}\n" + DOOR % 6000).egress
    with pytest.raises(ConfigError) as caught:
        _load("egress_process: {drain_timeout_s: 80000}\n" + DOOR % 6001)
    assert str(caught.value) == (
        "f:2: egress_process.drain_timeout_s: found 80000.0, allowed: at most 86000 together with "
        "egress.out.timeout_s, 6001"
    )

    with pytest.raises(ConfigError) as caught:
        _load(DOOR % 86000)
    assert str(caught.value) == (
        "f:3: egress.out.timeout_s: found 86000.0, allowed: at most 86000 together with "
        "egress_process.drain_timeout_s, 30"
    )


def _sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in section.__subclasses__():
        yield one
        yield from _sections(one)


def test_a_number_has_one_bound_on_each_side() -> None:
    """Of two the last one counts, which is that of a shared type such as Seconds."""
    twice = [
        f"{section.__name__}.{name}"
        for section in _sections(Section)
        for name, field in section.model_fields.items()
        for sides in [[type(bound) for bound in field.metadata if isinstance(bound, Le | Lt | Ge | Gt)]]
        if len({Le, Lt}.intersection(sides)) + len({Ge, Gt}.intersection(sides)) < len(sides)
    ]

    assert twice == []
    assert _load(CALLBACK % 60).egress
    with pytest.raises(ConfigError, match=r"egress\.out\.attempt_timeout_s: must be 60 or less; found 61"):
        _load(CALLBACK % 61)
