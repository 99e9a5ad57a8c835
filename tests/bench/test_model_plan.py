"""What the benchmark's model does with an event."""

from bench.model_plan import REFUSAL_S, Plan

EVENTS = [f"e{number}" for number in range(20_000)]


def test_the_shares_are_those_of_the_plan() -> None:
    plan = Plan(straggler_share=0.01, unavailable_share=0.05, poison_share=0.2)
    fates = [plan.fate(event) for event in EVENTS]
    for fate, share in (("straggler", 0.01), ("unavailable_once", 0.05), ("poison", 0.2)):
        assert abs(fates.count(fate) / len(EVENTS) - share) < 0.15 * share  # type: ignore[arg-type]


def test_another_seed_hits_other_events() -> None:
    one, other = Plan(seed=1, poison_share=0.1), Plan(seed=2, poison_share=0.1)
    assert [one.fate(event) for event in EVENTS] != [other.fate(event) for event in EVENTS]


def test_an_unavailable_event_is_answered_the_second_time() -> None:
    plan = Plan(unavailable_share=1.0)
    assert [plan.answer("e1", call) for call in (1, 2)] == [(503, REFUSAL_S), (200, plan.latency_s)]


def test_poison_is_refused_every_time() -> None:
    assert {Plan(poison_share=1.0).answer("e1", call)[0] for call in range(1, 5)} == {400}


def test_a_straggler_takes_its_factor_longer() -> None:
    assert Plan(latency_s=0.1, straggler_share=1.0, straggler_factor=25.0).answer("e1", 1) == (200, 2.5)


def test_the_plan_survives_the_command_line() -> None:
    plan = Plan(seed=3, poison_share=0.2)
    assert Plan.from_text(plan.to_text()) == plan
