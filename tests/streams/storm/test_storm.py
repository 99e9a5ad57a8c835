"""Whatever is combined and whatever goes wrong: one end, in order, paid for once, and nothing left; see __main__.py."""

import pytest

from tests.streams.storm.play import play


@pytest.mark.parametrize("seed", range(60))
def test_every_event_has_its_one_end_in_any_weather(seed: int) -> None:
    assert play(seed).violations == []
