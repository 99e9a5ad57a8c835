"""The page of examples/stream in a real browser: an answer grows, a lost connection comes back, errors are words."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.kafka.stream_lab import API_KEY, StreamLab
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ROOT, ChildProcess, eventually, free_port

pytestmark = pytest.mark.timeout(240)
ANSWER = " ".join(f"Sentence {number} of the answer." for number in range(30))
SHOTS = ROOT / "build" / "screenshots"
PATIENCE_MS = 30_000


class Stage:
    """Everything the page needs.

    Attributes:
        lab: gateway, worker, model.
        page_url: where the page is.
    """

    def __init__(self, lab: StreamLab, page_url: str, gateway_port: int) -> None:
        self.lab = lab
        self.page_url = page_url
        self._gateway_port = gateway_port
        self._gateway = contextlib.ExitStack()

    def start_gateway(self) -> None:
        self._gateway.enter_context(self.lab.gateway(port=self._gateway_port))

    def stop_gateway(self) -> None:
        self._gateway.close()


@pytest.fixture
def stage(kafka: KafkaLab, tmp_path: Path) -> Iterator[Stage]:
    page_port, gateway_port = free_port(), free_port()
    streams = {"heartbeat_s": 1, "allowed_origins": [f"http://127.0.0.1:{page_port}"]}
    lab = StreamLab(kafka, tmp_path, gateway={"streams": streams})
    server = ("examples.stream.server", "--port", str(page_port), "--gateway", f"http://127.0.0.1:{gateway_port}")
    with lab.model(), lab.lab.running(), ChildProcess(*server, env={"PENSTOCK_API_KEY": API_KEY}) as page:
        page.wait_for("page on")
        stage = Stage(lab, f"http://127.0.0.1:{page_port}", gateway_port)
        stage.start_gateway()
        yield stage
        stage.stop_gateway()


def open_page(browser: Browser, stage: Stage, *, width: int = 1000, scheme: str = "light") -> tuple[Page, list[str]]:
    """Return the page, and what goes wrong in it; a connection that is lost is not wrong."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    wrong: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "net::" not in message.text:
            wrong.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(stage.page_url)
    return page, wrong


def ask(page: Page) -> None:
    page.get_by_label("Text to summarise").fill("Please say something.")
    page.get_by_role("button", name="Summarise").click()


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_an_answer_grows_and_lost_connections_come_back(stage: Stage, browser: Browser) -> None:
    stage.lab.stub.set_knobs(answer=ANSWER, latency_s=0.2, stream_pause_s=0.04)
    page, wrong = open_page(browser, stage)
    answer, status = page.locator("#answer"), page.get_by_role("status")
    ask(page)
    expect(answer).to_contain_text("Sentence 3", timeout=PATIENCE_MS)
    assert answer.inner_text() != ANSWER
    expect(answer).to_have_attribute("aria-busy", "true")
    shoot(page, "stream-growing")
    link = page.get_by_role("link", name="Watch in a second window").get_attribute("href")

    page.get_by_role("button", name="Drop the connection").click()
    expect(answer).to_contain_text("Sentence 9", timeout=PATIENCE_MS)
    stage.stop_gateway()
    expect(status).to_have_text("Connection lost. Reconnecting ...", timeout=PATIENCE_MS)
    shoot(page, "stream-lost")
    stage.start_gateway()

    expect(status).to_have_text("Done.", timeout=PATIENCE_MS)
    assert answer.inner_text() == ANSWER
    assert int(page.locator("#reconnects").inner_text()) >= 2
    assert page.locator("#restarts").inner_text() == "0"
    assert re.fullmatch(r"\d+ ms", page.locator("#first").inner_text())
    expect(answer).to_have_attribute("aria-busy", "false")
    shoot(page, "stream-done")
    # Somebody else, at a phone in the dark, comes later and reads the same.
    phone, wrong_there = open_page(browser, stage, width=360, scheme="dark")
    phone.goto(f"{stage.page_url}/{link}")
    phone.reload()
    expect(phone.locator("#answer")).to_have_text(ANSWER, timeout=PATIENCE_MS)
    shoot(phone, "stream-phone")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    assert wrong + wrong_there == []


def test_what_goes_wrong_is_said_in_words(stage: Stage, browser: Browser) -> None:
    stage.lab.stub.set_knobs(error_rates={"blocked": 1.0})
    page, wrong = open_page(browser, stage, width=360)
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("The model refused to answer.", timeout=PATIENCE_MS)
    expect(page.get_by_role("status")).to_have_text("No answer.")
    expect(page.get_by_role("button", name="Summarise")).to_be_enabled()
    shoot(page, "stream-refused")
    stage.stop_gateway()

    ask(page)

    expect(page.get_by_role("alert")).to_contain_text("the gateway does not answer", timeout=PATIENCE_MS)
    expect(page.get_by_role("status")).to_have_text("Not sent.")
    assert eventually(lambda: page.get_by_role("button", name="Summarise").is_enabled())
    assert [text for text in wrong if "502" not in text] == []
