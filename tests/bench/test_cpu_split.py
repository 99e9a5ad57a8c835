"""Which part of the worker a sampled stack belongs to, and that the parts add up."""

from collections import Counter

from bench.cpu_split import Spent, figures, split
from bench.processes import Thread

_OUTER = "run_worker (/x/streams/worker.py:1);run (/usr/lib/python3.11/asyncio/runners.py:2)"


def test_the_innermost_frame_of_a_part_decides() -> None:
    stacks = f"{_OUTER};call (/x/streams/engine/engine.py:2);dumps (/usr/lib/python3.11/json/x.py:3) 7\n"
    assert split(stacks) == {"engine": 7}


def test_what_calls_asyncio_is_charged_and_the_bare_loop_is_a_part_of_its_own() -> None:
    stacks = f"{_OUTER};put (/x/faust/a.py:1);set (/usr/lib/python3.11/asyncio/locks.py:1) 2\n{_OUTER} 3\n"
    assert split(stacks) == {"fetch": 2, "event loop": 3}


def test_our_providers_count_as_http_and_our_counters_as_metrics() -> None:
    stacks = "a (/w/streams/providers/openai.py:1) 2\na (/w/contracts/metrics.py:1) 3\n"
    assert split(stacks) == {"HTTP": 2, "logs and metrics": 3}


def test_a_stack_of_nobody_is_named_other() -> None:
    assert split("a (/usr/lib/python3.11/enum.py:1) 1\n") == {"other": 1}


def test_threads_are_told_by_id_and_name_and_ended_ones_are_among_the_others() -> None:
    found = [
        Thread(8, "python", 1.0, 0.5),
        Thread(7, "python", 5.0, 1.0),
        Thread(9, "rdk:main", 1.0, 0.0),
        Thread(10, "rdk:broker1", 1.5, 0.5),
    ]
    assert Spent.of(7, 11.0, found, 20) == Spent(20, main_s=6.0, kernel_s=1.0, native_s=3.0, others_s=2.0)


def test_all_but_the_first_figure_and_the_kernels_add_up_to_the_first() -> None:
    before, after = Spent(100, 1.0, 0.5, 1.0, 1.0), Spent(1100, 1.16, 0.52, 1.03, 1.01)
    found = figures(after.since(before), Counter({"engine": 30, "HTTP": 10}))
    assert [(one.name, one.value) for one in found] == [
        ("CPU per event, whole worker", 200),
        ("main thread: engine", 120.0),
        ("main thread: HTTP", 40.0),
        ("consumer's thread and others", 10.0),
        ("librdkafka's threads, producer and readers", 30.0),
        ("of the main thread: in the kernel", 20.0),
    ]
    assert [one.holds for one in found] == [False, None, None, None, None, None]
