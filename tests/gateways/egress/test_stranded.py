"""A reader whose client has lost all brokers makes another one: this one would be silent for ever."""

from collections.abc import Callable
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from contracts.errors import LogUnavailable
from gateways.egress import board, deltas_tail, indexing, intake, reading, replies, tail
from gateways.egress.board import KafkaBoard
from gateways.egress.deltas_tail import DeltasTail
from gateways.egress.indexing import Indexing
from gateways.egress.intake import Intake, Receiver
from gateways.egress.outcomes import OutcomeCache
from gateways.egress.reading import LogIds
from gateways.egress.replies import Replies
from gateways.egress.tail import Tail
from tests.support import eventually

WITHOUT = '{ "name": "reader#1", "client_id": "reader", "brokers":{ }, "topics":{ } }'


class Stranded:
    """A client without brokers, of which there have been `made`, and `closed`."""

    made = closed = 0

    def __init__(self, config: dict[str, Any]) -> None:
        type(self).made += 1
        self._look = config["stats_cb"]

    def poll(self, _timeout_s: float = 0.0) -> None:
        """Look at itself, as a client does each time its statistics are due."""
        self._look(WITHOUT)

    def consume(self, _count: int, _timeout_s: float) -> list[Any]:
        """Do the same."""
        self._look(WITHOUT)
        return []

    def list_topics(self, **_options: Any) -> Any:
        """Know the topic."""
        return MagicMock(topics={"t": MagicMock(error=None)})

    def subscribe(self, *_args: Any, **_more: Any) -> None:
        """Join nothing."""

    assign = incremental_assign = subscribe

    def close(self) -> None:
        """Count it."""
        type(self).closed += 1


@pytest.fixture(autouse=True)
def stranded(monkeypatch: pytest.MonkeyPatch) -> type[Stranded]:
    monkeypatch.setattr(Stranded, "made", 0)
    monkeypatch.setattr(Stranded, "closed", 0)
    for module in (board, deltas_tail, indexing, intake, replies, tail):
        monkeypatch.setattr(module, "Consumer", Stranded)
        for name, said in (("partitions_of", (0,)), ("watermarks", (0, 5)), ("offset_since", 0)):
            monkeypatch.setattr(module, name, lambda *_, said=said: said, raising=False)
        monkeypatch.setattr(module, "_RETRY_S", 0.01, raising=False)
    monkeypatch.setattr(LogIds, "made_anew", lambda _self: frozenset())
    return Stranded


def of_disk() -> Indexing:
    index = MagicMock(is_damaged=False, log_ids=dict, next_offsets=dict)
    return Indexing({}, ["t"], [], index, 60.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Replies({}, "t", lambda _: None),
        lambda: Tail({}, ["t"], [], OutcomeCache(2**20)),
        lambda: DeltasTail({}, "t", set(), lambda _: None, lambda: None),
        lambda: KafkaBoard({}, "t", cast("Any", None), "app"),
        of_disk,
    ],
    ids=["replies", "results", "deltas", "board", "index"],
)
def test_a_reader_makes_another_client(make: Callable[[], Any], stranded: type[Stranded]) -> None:
    reader = make()
    reader.start()
    try:
        eventually(lambda: stranded.made > 2)
    finally:
        reader.close()
    assert stranded.closed >= 2


def test_who_asks_for_ids_goes_on_with_another_client_and_so_do_all_who_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A door that begins a new session asks first, and would never begin."""

    class Asked(Stranded):
        def describe_topics(self, *_args: Any, **_more: Any) -> dict[str, Any]:
            """Tell which client was asked."""
            return {"by": self}

    monkeypatch.setattr(reading, "AdminClient", Asked)
    board, door = (LogIds({"bootstrap.servers": "stranded:9092"}, ["t"]) for _ in range(2))
    first: Any = board._ask(["t"], 1.0)["by"]
    assert Asked.made == 1

    second: Any = door._ask(["t"], 1.0)["by"]

    assert second is not first
    assert cast("Any", board)._client is second


def test_replies_whose_topic_is_missing_keep_nothing_that_the_client_says(
    monkeypatch: pytest.MonkeyPatch, stranded: type[Stranded]
) -> None:
    """Nobody else polls then, and statistics would gather for as long as that is so."""
    monkeypatch.setattr(replies, "partitions_of", lambda *_: ())
    waiting = Replies({}, "t", lambda _: None)
    waiting.start()
    try:
        eventually(lambda: stranded.made > 2)
    finally:
        waiting.close()


async def test_a_doors_session_ends_and_the_next_one_has_another_client(stranded: type[Stranded]) -> None:
    door = Intake("door", {}, ["t"], {}, cast("Receiver", None))
    await door.open()
    await door.poll(is_full=False)

    with pytest.raises(LogUnavailable, match="has lost all its brokers"):
        await door.poll(is_full=False)
    await door.aclose()

    assert stranded.closed == 1
