"""`make chaos SEED=n`, or `python -m tests.chaos --help`: bounded, seeded, on loopback, ends by itself."""

import contextlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Never

import click

from tests.chaos.injected import MOST_S, WEIGHTS, injected_leg
from tests.chaos.lab import Lab
from tests.chaos.leg import IDEAL_RATE, Leg, NoProgressError, Verdict, run_folder
from tests.chaos.plan import CLUSTER, STORM, Plan, make_plan
from tests.chaos.report import report
from tests.kafkalab.cluster import JvmCluster
from tests.kafkalab.jvm import JvmBroker

LEGS = ("storm", "cluster", "injected")
_WEIGHTS = {"storm": STORM, "cluster": CLUSTER, "injected": WEIGHTS}


@click.command()
@click.option("--seed", type=int, default=None, help="Of plan, events and model; a random one, printed, when absent.")
@click.option("--minutes", default=2.0, show_default=True, type=click.FloatRange(0.2, 30), help="Of faults, per leg.")
@click.option("--rate", default=60.0, show_default=True, type=click.FloatRange(1, 1000), help="Events a second.")
@click.option("--leg", "legs", multiple=True, type=click.Choice(LEGS), help="Only this leg; all when absent.")
@click.option(
    "--apart", is_flag=True, help="Each fault is over before the next one; tells the longest stall after each."
)
@click.option("--mixed", is_flag=True, help="Packed and streamed events as well, and such as wait on the retry topic.")
@click.option("--plan-only", is_flag=True, help="Print the plans and end.")
def main(
    seed: int | None, minutes: float, rate: float, legs: tuple[str, ...], *, apart: bool, mixed: bool, plan_only: bool
) -> None:
    """Disturb real workers on real Kafka by plan, and check that every event ended once, in order, paid once."""
    signal.signal(signal.SIGTERM, _end)
    seed = seed if seed is not None else random.SystemRandom().randrange(10**6)
    chosen = legs or LEGS
    options = "".join(f" --leg {leg}" for leg in legs) + (" --apart" if apart else "") + (" --mixed" if mixed else "")
    command = f"python -m tests.chaos --seed {seed} --minutes {minutes:g} --rate {rate:g}{options}"
    click.echo(f"again: {command}")
    plans = {leg: draw_plan(leg, seed, minutes * 60, is_apart=apart) for leg in chosen}
    if "injected" in plans and plans["injected"].seconds < minutes * 60:
        click.echo(f"injected has faults for {MOST_S:g} s, no longer: all of its events wait from the start")
    for leg, plan in plans.items():
        click.echo("\n  ".join([f"plan of {leg}:", *plan.lines()]))
    if plan_only:
        return
    try:
        verdicts = [_run(plans[leg], leg, rate, is_mixed=mixed) for leg in chosen]
    except KeyboardInterrupt:
        click.echo("stopped; everything that was started has been ended", err=True)
        sys.exit(130)
    status = report(seed, command, verdicts, click.echo)
    click.echo(f"logs of every process: {run_folder(seed, '')}\nagain: {command}")
    sys.exit(status)


def _run(plan: Plan, name: str, rate: float, *, is_mixed: bool) -> Verdict:
    dice = random.Random(f"{plan.seed}/{name}/after")  # noqa: S311 - reproducible on purpose
    folder = run_folder(plan.seed, name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        leg = stack.enter_context(_leg(plan, name, rate, is_mixed=is_mixed))
        start_s = time.monotonic()
        try:
            leg.storm(backlog_of(plan) if name == "injected" else 0)
            click.echo(f"the storm of {name} is over after {time.monotonic() - start_s:.0f} s")
            if name == "storm" and not plan.is_apart:
                leg.reset(dice.uniform(0.2, 1.0))
                leg.recreate(400)
        except NoProgressError as error:
            # The books say which events it is about.
            leg.problems.append(f"NO PROGRESS: {error}")
        return leg.close_books()


def draw_plan(leg: str, seed: int, seconds: float, *, is_apart: bool = False) -> Plan:
    """Draw the plan of a leg."""
    most_s = MOST_S if leg == "injected" else seconds
    return make_plan(seed, min(seconds, most_s), _WEIGHTS[leg], is_apart=is_apart)


def backlog_of(plan: Plan) -> int:
    """Return enough events for a worker at work until the last fault."""
    return int(plan.seconds * IDEAL_RATE)


@contextlib.contextmanager
def _leg(plan: Plan, name: str, rate: float, *, is_mixed: bool) -> Iterator[Leg]:
    is_cluster = name == "cluster"
    folder = run_folder(plan.seed, name)
    if name == "injected":
        with injected_leg(plan, folder, click.echo) as leg:
            yield leg
        return
    broker = JvmCluster() if is_cluster else JvmBroker(0)
    try:
        broker.start()
        click.echo(f"{name}: on {broker.description}")
        lab = Lab(broker.bootstrap, f"chaos-{name}", folder, replicas=3 if is_cluster else 1)
        brokers = broker.brokers if isinstance(broker, JvmCluster) else [broker]
        data = [broker.data for broker in brokers]
        options: dict[str, Any] = {"with_gateway": not is_cluster, "data": data, "is_mixed": is_mixed}
        with Leg(name, lab, plan, brokers, click.echo, rate=rate, **options) as leg:
            yield leg
    finally:
        broker.close()


def _end(_number: int, _frame: FrameType | None) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos")
