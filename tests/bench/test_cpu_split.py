"""Which part of the worker a sampled stack belongs to."""

from bench.cpu_split import native, split


def test_the_innermost_frame_of_a_part_decides() -> None:
    stacks = "run (/x/uvloop/a.py:1);call (/x/streams/engine/engine.py:2);dumps (/usr/lib/python3.11/json/x.py:3) 7\n"
    assert split(stacks) == {"engine": 7}


def test_our_providers_count_as_http_and_our_counters_as_metrics() -> None:
    stacks = "a (/w/streams/providers/openai.py:1) 2\na (/w/contracts/metrics.py:1) 3\n"
    assert split(stacks) == {"HTTP": 2, "logs and metrics": 3}


def test_a_stack_of_nobody_is_named_other() -> None:
    assert split("a (/usr/lib/python3.11/enum.py:1) 1\n") == {"other": 1}


def test_native_threads_are_told_by_their_name() -> None:
    assert native({"python": 5.0, "rdk:main": 1.0, "rdk:broker1": 2.0}) == 3.0
