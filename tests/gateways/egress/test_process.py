"""The process of the doors: which doors, its page, and a door whose own code fails."""

import asyncio
import signal
import threading
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from contracts.errors import ConfigError
from contracts.settings import Settings, build, parse
from contracts.settings.egress import DOOR_KINDS, DoorSection
from contracts.topics import Topics
from gateways.egress.base import DELIVERED, Later, PlainDoor, Shape, Verdict
from gateways.egress.breaker import Breaker
from gateways.egress.delivering import Delivery
from gateways.egress.ledger import Entry, Ledger
from gateways.egress.page import HealthPage
from gateways.egress.process import Process, chosen_doors
from gateways.egress.settling import Settler
from gateways.egress.table import SHARING, TABLE
from tests.suites.egress import result_item
from tests.support import FakeClock, eventually_async, free_port

TWO = """
version: 1
egress:
  orders: {kind: sqs, region: eu-west-1, queue_url: 'http://127.0.0.1:1/q'}
  archive: {kind: s3, region: eu-west-1, bucket: results}
"""


def settings(text: str) -> Settings:
    return build(parse(text, "penstock.yaml"), {}, Path())


def test_every_kind_of_the_settings_has_a_door() -> None:
    assert {*TABLE, *SHARING} == DOOR_KINDS


def test_all_doors_run_unless_some_are_named() -> None:
    assert list(chosen_doors(settings(TWO), ())) == ["orders", "archive"]
    assert list(chosen_doors(settings(TWO), ("archive",))) == ["archive"]


def test_an_unknown_name_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match="no door 'arkive' under egress; configured: archive, orders"):
        chosen_doors(settings(TWO), ("arkive",))


def test_without_any_door_it_does_not_start() -> None:
    with pytest.raises(ConfigError, match="no door under egress"):
        chosen_doors(settings("version: 1"), ())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{kind: sqs, region: eu-west-1}", "penstock.yaml:3: egress.a.queue_url: is required"),
        ("{kind: sqs, region: eu-west-1, queue_url: 'ftp://x'}", "penstock.yaml:3: egress.a.queue_url: "),
        ("{kind: carrier-pigeon}", "penstock.yaml:3: egress.a.kind: found 'carrier-pigeon', allowed: "),
        ("{kind: sns, region: eu-west-1, topic_arn: topic}", "penstock.yaml:3: egress.a.topic_arn: "),
    ],
)
def test_a_wrong_section_names_file_line_and_key(line: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(f"version: 1\negress:\n  a: {line}\n")

    assert str(caught.value).startswith(text)


async def test_the_address_of_an_ipv6_host_is_a_url(ipv6_loopback: str) -> None:
    page = HealthPage("egress_process", ipv6_loopback, 0, list, list)
    address = await page.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(address + "/healthz") as answer:
            assert answer.status == 200
        assert address.startswith("http://[::1]:")
        with pytest.raises(ConfigError, match=r"cannot listen on \[::1\]:\d+: "):
            await HealthPage("egress_process", ipv6_loopback, int(address.rpartition(":")[2]), list, list).start()
    finally:
        await page.aclose()


async def test_the_page_says_what_is_wrong() -> None:
    unready = ["log_unavailable:orders"]
    page = HealthPage("egress_process", "127.0.0.1", 0, list, lambda: unready)
    address = await page.start()
    try:
        async with aiohttp.ClientSession() as session:
            answers = {path: await session.get(address + path) for path in ("/healthz", "/readyz", "/metrics")}
            assert {path: answer.status for path, answer in answers.items()} == {
                "/healthz": 200,
                "/readyz": 503,
                "/metrics": 200,
            }
            assert await answers["/readyz"].json() == {"status": "failing", "problems": unready}
            assert "penstock_deliveries_total" in await answers["/metrics"].text()
            with pytest.raises(ConfigError, match=r"egress_process.health_port: cannot listen"):
                await HealthPage("egress_process", "127.0.0.1", int(address.rpartition(":")[2]), list, list).start()
    finally:
        await page.aclose()


async def test_its_page_is_there_while_the_board_is_still_read() -> None:
    is_read = asyncio.Event()

    class Board:
        def start(self) -> None: ...

        def close(self) -> None: ...

        async def ready(self, limit_s: float) -> bool:
            async with asyncio.timeout(limit_s):
                return await is_read.wait()

    port = free_port()
    one = settings(f"{TWO}egress_process: {{health_port: {port}}}\n")

    async def produce(_record: Any) -> None: ...

    running = asyncio.ensure_future(Process(one, {}, produce, cast("Any", Board())).run())
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def answers(path: str) -> tuple[int, Any] | None:
            try:
                answer = await session.get(path)
            except aiohttp.ClientConnectionError:
                return None
            return answer.status, (await answer.json())["problems"]

        assert await eventually_async(lambda: answers("/healthz")) == (200, [])
        assert await answers("/readyz") == (503, ["starting"])
    is_read.set()
    await running


async def test_a_stop_does_not_wait_until_the_board_is_read() -> None:
    class Board:
        is_closed = False

        def start(self) -> None: ...

        def close(self) -> None:
            self.is_closed = True

        async def ready(self, limit_s: float) -> bool:
            async with asyncio.timeout(limit_s):
                is_asked.set()
                return await asyncio.Event().wait()

    is_asked, board = asyncio.Event(), Board()

    async def produce(_record: Any) -> None: ...

    one = settings(f"{TWO}egress_process: {{health_port: 0}}\n")
    process = Process(one, {}, produce, cast("Any", board))
    running = asyncio.ensure_future(process.run())
    await is_asked.wait()

    process._begin(signal.SIGTERM)

    async with asyncio.timeout(5):
        await running
    assert board.is_closed


async def test_a_second_signal_is_heard_while_the_board_is_closed() -> None:
    """A board waits for its call into Kafka."""
    loop, is_heard = asyncio.get_running_loop(), threading.Event()
    heard: list[bool] = []

    class Board:
        def start(self) -> None: ...

        def close(self) -> None:
            loop.call_soon_threadsafe(is_heard.set)
            heard.append(is_heard.wait(5))

        async def ready(self, _limit_s: float) -> bool:
            process._begin(signal.SIGTERM)
            return True

    async def produce(_record: Any) -> None: ...

    one = settings(f"{TWO}egress_process: {{health_port: 0}}\n")
    process = Process(one, {}, produce, cast("Any", Board()))
    await process.run()

    assert heard == [True]


class Faulty(PlainDoor):
    """A door with a fault of its own."""

    shape = Shape(max_batch=2)

    def __init__(self, fault: str) -> None:
        self.fault = fault

    async def start(self) -> None:
        """Need nothing."""

    async def aclose(self) -> None:
        """Need nothing."""

    async def deliver(self, _items: Any) -> list[Verdict]:
        """Fail as told."""
        if self.fault == "raises":
            message = "a fault of the code"
            raise RuntimeError(message)
        if self.fault == "hangs":
            await asyncio.sleep(60)
        return [DELIVERED]


@pytest.mark.parametrize(
    ("fault", "reason"), [("raises", "door_failed"), ("hangs", "timeout"), ("short", "door_failed")]
)
async def test_a_fault_of_a_door_is_a_failed_delivery_of_every_item(fault: str, reason: str) -> None:
    parked = []

    async def produce(record: Any) -> None:
        parked.append(record.topic)

    section = DoorSection(timeout_s=0.05)
    delivery = Delivery("d", Faulty(fault), section, Settler("d", Topics(), produce, "app"))
    entries = [Entry(result_item(number), Ledger("r", 0), number, 0.0) for number in range(2)]

    again, settled = await delivery.deliver(Breaker(section.breaker, FakeClock()), entries)

    assert (again, settled) == ({}, set(entries))
    assert parked == ["penstock.deliveries.5s.v1"] * 2
    assert await delivery._ask(entries) == [Later(reason, text_of_fault(fault))] * 2


def text_of_fault(fault: str) -> str:
    return {"raises": "RuntimeError", "hangs": "no answer within 0.05 s", "short": "1 verdicts for 2 items"}[fault]


async def test_what_an_operator_must_mend_uses_up_no_attempt_and_stays() -> None:
    class Denied(Faulty):
        async def deliver(self, items: Any) -> list[Verdict]:
            return [Later("access_denied", scope="operator") for _ in items]

    async def produce(_record: Any) -> None:
        pytest.fail("nothing is put aside")

    section = DoorSection(max_attempts=1)
    delivery = Delivery("d", Denied(""), section, Settler("d", Topics(), produce, "app"))
    entry = Entry(result_item(1), Ledger("r", 0), 1, 0.0)
    breaker = Breaker(section.breaker, FakeClock())

    again, settled = await delivery.deliver(breaker, [entry])

    assert (again, settled, breaker.is_open) == ({entry: 0.0}, set(), True)
    assert entry.item.attempt == 1


@pytest.mark.parametrize(
    ("first_at_s", "topic"), [(0.0, "penstock.deliveries.5s.v1"), (1.0, "penstock.undelivered.v1")]
)
async def test_tries_for_an_open_breaker_use_up_patience_and_no_attempt(first_at_s: float, topic: str) -> None:
    class Away(Faulty):
        async def deliver(self, items: Any) -> list[Verdict]:
            return [Later("unavailable") for _ in items]

    put: list[str] = []

    async def produce(record: Any) -> None:
        put.append(record.topic)

    section = DoorSection(max_attempts=3)
    delivery = Delivery("d", Away(""), section, Settler("d", Topics(), produce, "app"))
    entry = Entry(result_item(1), Ledger("r", 0), 1, first_at_s)
    breaker = Breaker(section.breaker, FakeClock())
    breaker.failed(opens=True)
    for _ in range(5 if first_at_s == 0.0 else 0):
        assert await delivery.deliver(breaker, [entry]) == ({entry: 0.0}, set())
    if first_at_s == 0.0:
        # By another item; the destination falters once more.
        breaker.succeeded()

    assert await delivery.deliver(breaker, [entry]) == ({}, {entry})
    assert put == [topic]


async def test_an_ordered_item_is_given_up_when_patience_is_over() -> None:
    class Locked(Faulty):
        shape = Shape(order="key")

        async def deliver(self, items: Any) -> list[Verdict]:
            return [Later("locked", scope="item") for _ in items]

    put: list[str] = []

    async def produce(record: Any) -> None:
        put.append(record.topic)

    section = DoorSection()
    delivery = Delivery("d", Locked(""), section, Settler("d", Topics(), produce, "app"))
    fresh, old = (Entry(result_item(number), Ledger("r", 0), number, at_s) for number, at_s in ((1, 0.0), (2, 1.0)))
    breaker = Breaker(section.breaker, FakeClock())

    assert await delivery.deliver(breaker, [fresh]) == ({fresh: 1.0}, set())
    assert await delivery.deliver(breaker, [old]) == ({}, {old})
    assert put == ["penstock.undelivered.v1"]
