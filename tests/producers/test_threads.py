"""The pool of daemon threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from producers.threads import DaemonPool, NoThread
from tests.support import eventually, no_threads


@pytest.fixture
def pool() -> Iterator[DaemonPool]:
    pool = DaemonPool(2, "test")
    yield pool
    pool.close()


def test_it_runs_at_most_its_size_at_a_time(pool: DaemonPool) -> None:
    gate = threading.Event()
    futures = [pool.submit(gate.wait) for _ in range(5)]

    eventually(lambda: sum(future.running() for future in futures) == 2)
    assert pool.busy == 2

    gate.set()
    assert [future.result(5) for future in futures] == [True] * 5


def test_work_behind_a_hanging_call_is_done_by_another_thread(pool: DaemonPool) -> None:
    gate = threading.Event()
    pool.submit(gate.wait)

    for number in range(50):
        assert pool.submit(lambda number=number: number).result(5) == number  # type: ignore[misc]

    gate.set()


class NoThreads(threading.Thread):
    """A thread in a container that is at its limit of them."""

    def start(self) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)


def test_where_no_thread_can_be_started_the_others_do_the_work(
    pool: DaemonPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    running = pool.submit(gate.wait)
    eventually(running.running)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThreads)
        waiting = [pool.submit(lambda: 1) for _ in range(3)]
    gate.set()

    assert [future.result(5) for future in waiting] == [1, 1, 1]
    # The one that was refused does not count: there may be two again.
    gate.clear()
    again = [pool.submit(gate.wait) for _ in range(2)]
    eventually(lambda: all(future.running() for future in again))
    gate.set()


def test_without_any_thread_nothing_is_left_behind(pool: DaemonPool, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThreads)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                pool.submit(lambda: done.append(1))

    assert pool.submit(lambda: 2).result(5) == 2
    assert done == []


def test_an_exception_reaches_whoever_waits(pool: DaemonPool) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(5)

    assert pool.submit(lambda: 1).result(5) == 1


def test_closing_cancels_what_has_not_begun(pool: DaemonPool) -> None:
    gate = threading.Event()
    running = [pool.submit(gate.wait) for _ in range(2)]
    eventually(lambda: all(future.running() for future in running))
    waiting = pool.submit(lambda: 1)

    pool.close()

    with pytest.raises(CancelledError):
        waiting.result(5)
    with pytest.raises(CancelledError):
        pool.submit(lambda: 1).result(5)
    gate.set()
    assert all(future.result(5) for future in running)


def test_its_threads_do_not_hold_up_the_end_of_the_process(pool: DaemonPool) -> None:
    assert pool.submit(lambda: threading.current_thread().daemon).result(5)


def test_a_burst_on_one_idle_thread_starts_another(pool: DaemonPool) -> None:
    pool.submit(lambda: 1).result(5)
    eventually(lambda: pool.busy == 0)
    gate = threading.Event()

    burst = [pool.submit(gate.wait) for _ in range(2)]

    eventually(lambda: all(future.running() for future in burst))
    gate.set()


async def test_what_finds_no_thread_is_told_and_not_done_later(pool: DaemonPool) -> None:
    done: list[int] = []
    with no_threads(), pytest.raises(NoThread, match="can't start new thread"):
        await pool.run(done.append, 1)

    await pool.run(done.append, 2)

    assert done == [2]
