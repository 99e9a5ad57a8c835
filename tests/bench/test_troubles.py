"""What a kill cost, in numbers that hide nothing."""

from bench.outcomes import Outcomes
from bench.runs import Job, Run
from bench.sides import Side
from bench.troubles import kill_figures


def killed(extra: int, opened: int, in_flight: int, gap_s: float) -> Run:
    outcomes = Outcomes(1, stamps=[0.0, 1.0, 1.0 + gap_s])
    notes: dict[str, float] = {"open": opened, "in_flight": in_flight}
    return Run(Job(1, 3), outcomes, [], {"extra_calls": extra}, 0.0, notes)


def test_a_kill_tells_what_its_differences_are_of() -> None:
    runs = [killed(60, 64, 55, 2.0), killed(62, 62, 60, 5.9), killed(10, 20, 15, 3.0)]
    found = {figure.name: figure for figure in kill_figures(Side("penstock", True, (), ""), runs)}

    def value(name: str) -> float:
        return found[f"{name}, penstock"].value

    difference = "extra model calls, less those whose answer was not on the topic at the kill, worst"
    assert (value(difference), found[f"{difference}, penstock"].holds) == (0, True)
    # All three of the run in which the difference was the worst.
    assert value("extra model calls of that run") == 62
    assert value("called for at the kill of that run, and no answer on the topic") == 62
    assert value("calls in flight at the kill of that run") == 60
    assert value("longest stall beyond the session timeout") == 0
    assert value("longest time without a new result, worst") == 5.9
