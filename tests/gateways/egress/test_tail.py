"""What the follower of result topics says of itself while its thread lets go of a topic."""

import pytest

from gateways.egress.outcomes import OutcomeCache
from gateways.egress.tail import Tail


def test_a_topic_that_is_let_go_in_the_middle_of_the_question_is_not_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = Tail({}, ("results",), (), OutcomeCache(2**20))
    tail._covered_from_ms = {("results", 0): None}

    def is_caught_up(_tail: Tail) -> bool:
        """Be the moment in which the thread comes in."""
        tail._covered_from_ms = {}
        return True

    monkeypatch.setattr(Tail, "is_caught_up", property(is_caught_up))

    assert not tail.covers(0, 10**12)
