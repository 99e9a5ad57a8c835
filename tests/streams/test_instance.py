"""One worker per instance id: what is refused, what is waited for, and what is nobody's fault."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import ConfigError, LogUnavailable
from contracts.settings import KafkaSettings, WorkerSettings
from streams import instance as instance_module
from streams.instance import Instance, client_id

WORKER = WorkerSettings(app_id="app", instance_id="a", session_timeout_s=3)


def member(member_id: str, client: str, name: str = "a") -> Any:
    return SimpleNamespace(member_id=member_id, client_id=client, host="/10.0.0.7", group_instance_id=name)


class Place(Instance):
    """An instance whose group is told: one answer a question, the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.twins: list[ConfigError] = []
        self.answers = list(answers)
        super().__init__(KafkaSettings(), WORKER, self.twins.append)

    def _find(self) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(instance_module, "_POLL_S", 0.01)
    monkeypatch.setattr(instance_module, "_MARGIN_S", -2.95)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


async def test_a_free_place_is_taken() -> None:
    await Place(None).take()


async def test_what_an_earlier_process_of_this_host_left_is_taken_over_at_once() -> None:
    place = Place(member("m0", client_id("app")), AssertionError("asked again"))
    await place.take()


async def test_a_second_process_of_this_host_is_refused_with_the_number_of_the_first() -> None:
    first = Place(None)
    await first.take()

    with pytest.raises(ConfigError, match=r"^worker\.instance_id a is taken in group app: process \d+ on this host"):
        await Place(None).take()

    first.release()
    await Place(None).take()


async def test_another_host_is_waited_for_while_its_session_may_still_end() -> None:
    await Place(*[member("m0", "app.other.1")] * 3, None).take()


async def test_another_host_that_outlives_its_session_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"a worker on 10\.0\.0\.7 \(client id app\.other\.1\) has it"):
        await Place(member("m0", "app.other.1")).take()


async def test_a_group_that_cannot_be_read_is_asked_again() -> None:
    await Place(LogUnavailable("away"), LogUnavailable("away"), None).take()


async def test_the_first_join_is_not_asked_about_again() -> None:
    await Place(AssertionError("asked")).before_join(frozenset(), is_unsure=False)


async def test_a_worker_that_was_thrown_out_by_a_twin_never_joins_again() -> None:
    place = Place(member("m2", client_id("app")))
    joining = asyncio.ensure_future(place.before_join(frozenset({"m1"}), is_unsure=False))
    await asyncio.sleep(0.1)

    assert not joining.done()
    assert "is taken in group app" in str(place.twins[0])

    joining.cancel()


async def test_a_worker_whose_session_was_lost_joins_again() -> None:
    await Place(None).before_join(frozenset({"m1"}), is_unsure=False)


async def test_a_member_that_is_still_ourselves_is_no_twin() -> None:
    await Place(member("m1", client_id("app"))).before_join(frozenset({"m1"}), is_unsure=False)


async def test_a_member_that_may_be_our_own_unanswered_join_is_waited_for() -> None:
    place = Place(*[member("m2", client_id("app"))] * 3, None)
    await place.before_join(frozenset({"m1"}), is_unsure=True)

    assert place.twins == []


async def test_a_lock_file_that_cannot_be_made_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    await Place(None).take()


def test_a_client_id_names_the_host() -> None:
    assert client_id("app").startswith("app.")
    assert client_id("app") == client_id("app")
