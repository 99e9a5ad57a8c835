"""The page of examples/stream in a real browser, in front of a gateway of our own making: odd texts, odd links."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from examples.stream.server import MAX_BODY_BYTES, Handler
from tests.support import ROOT

pytestmark = pytest.mark.timeout(120)
SHOTS = ROOT / "build" / "screenshots"
# Markup, right to left, a word that no line can hold, an emoji of several characters, C0.
ODD = (
    "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script> "
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645 \U0001f469\u200d\U0001f469\u200d\U0001f467 "
    + "w" * 500
    + " \x07\x1b[31m"
)


class Gateway(BaseHTTPRequestHandler):
    """Answers as the gateway does, with what the test says."""

    pieces: ClassVar[list[str]] = []
    output: ClassVar[object] = ""
    status: ClassVar[int] = 200
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        body = b'{"stream_url": "/v1/stream/e-1?ticket=t"}'
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        if self.status == 200:
            for number, text in enumerate(self.pieces):
                self._event("delta", {"text": text}, f"0:{number}")
            self._event("result", {"result": {"output": self.output}}, "end")

    def _event(self, kind: str, frame: object, event_id: str) -> None:
        self.wfile.write(f"event: {kind}\nid: {event_id}\ndata: {json.dumps(frame)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the gateway's URL; what it answers is set at its class, for one test."""
    for name, value in {"pieces": [], "output": "Done.", "status": 200, "bodies": []}.items():
        monkeypatch.setattr(Gateway, name, value)
    with served(Gateway) as url:
        yield url


@pytest.fixture
def page_url(gateway: str) -> Iterator[str]:
    with served(partial(Handler, gateway=gateway, api_key="k")) as url:
        yield url


class served:  # noqa: N801 - used as a function
    """Serves on a free port meanwhile."""

    def __init__(self, handler: type[BaseHTTPRequestHandler] | partial[Handler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def opened(browser: Browser, url: str, *, width: int = 360, scripts: bool = True) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=scripts)
    page = context.new_page()
    page.goto(url)
    return page


def ask(page: Page, text: str) -> None:
    page.get_by_label("Text to summarise").fill(text)
    page.get_by_role("button", name="Summarise").click()


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_odd_text_is_shown_as_it_is_and_stays_within_the_page(
    browser: Browser, page_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "pieces", [ODD])
    monkeypatch.setattr(Gateway, "output", {"summary": ODD})
    page = opened(browser, page_url)

    ask(page, ODD)

    expect(page.get_by_role("status")).to_have_text("Done.")
    assert page.evaluate("JSON.parse(document.getElementById('answer').textContent).summary") == ODD
    assert json.loads(Gateway.bodies[0])["text"] == ODD
    assert page.title() == "Penstock: an answer that grows"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shoot(page, "stream-odd")


def test_an_answer_reads_from_the_right_where_its_script_does(
    browser: Browser, page_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "output", "\u0645\u0631\u062d\u0628\u0627\nHello")
    page = opened(browser, page_url)

    ask(page, "\u0645\u0631\u062d\u0628\u0627")

    expect(page.get_by_role("status")).to_have_text("Done.")
    shoot(page, "stream-rtl")
    # Where the lines begin, of 360 pixels: the first at the right, the second at the left.
    lefts = page.evaluate(
        "(() => { const range = document.createRange(); range.selectNodeContents(document.getElementById('answer'));"
        " return [...range.getClientRects()].map((box) => Math.round(box.left)); })()"
    )
    assert lefts[0] > 180 > lefts[-1]
    direction = "getComputedStyle(document.getElementById('text')).direction"
    assert page.evaluate(direction) == "rtl"


def test_thousands_of_pieces_are_all_shown(browser: Browser, page_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f"{number} " for number in range(5000)]
    monkeypatch.setattr(Gateway, "pieces", pieces)
    monkeypatch.setattr(Gateway, "output", "".join(pieces))
    page = opened(browser, page_url)

    ask(page, "Count.")

    expect(page.get_by_role("status")).to_have_text("Done.", timeout=30_000)
    assert page.locator("#pieces").inner_text() == "5000"
    assert page.locator("#answer").evaluate("(node) => node.textContent") == "".join(pieces)


def test_a_text_that_is_too_long_is_said_and_not_cut_off(browser: Browser, page_url: str) -> None:
    page = opened(browser, page_url)

    ask(page, "\u00e4" * (MAX_BODY_BYTES // 2) + "x")

    expect(page.get_by_role("alert")).to_have_text("The text is too long: 100,001 bytes of at most 100,000.")
    assert Gateway.bodies == []

    ask(page, "x" * MAX_BODY_BYTES)

    expect(page.get_by_role("status")).to_have_text("Done.")
    assert len(json.loads(Gateway.bodies[0])["text"]) == MAX_BODY_BYTES


def test_without_scripts_the_page_says_that_it_needs_them_and_sends_nothing(browser: Browser, page_url: str) -> None:
    page = opened(browser, page_url, scripts=False)
    shoot(page, "stream-no-scripts")

    assert "needs JavaScript" in page.content()
    page.get_by_label("Text to summarise").fill("A secret.")
    with page.expect_console_message(lambda message: "form-action" in message.text, timeout=10_000):
        # Not `click`, which waits for the navigation that must not come.
        page.get_by_role("button", name="Summarise").dispatch_event("click")

    assert page.url == f"{page_url}/"
    assert Gateway.bodies == []


@pytest.mark.parametrize("link", ["%", "not-a-link", "%E0%A4%A"])
def test_a_link_that_is_broken_is_said(browser: Browser, page_url: str, link: str) -> None:
    page = opened(browser, f"{page_url}/#{link}")

    expect(page.get_by_role("alert")).to_have_text(
        "The address of this page names no answer: its end is missing or changed."
    )
    expect(page.get_by_role("status")).to_have_text("Nothing asked yet.")


def test_a_link_that_the_gateway_refuses_is_said_and_the_page_can_be_used(
    browser: Browser, gateway: str, page_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "status", 404)
    page = opened(browser, f"{page_url}/#{quote(f'{gateway}/v1/stream/e-0?ticket=old', safe='')}")

    expect(page.get_by_role("alert")).to_contain_text("The gateway refuses the link", timeout=20_000)
    expect(page.get_by_role("button", name="Summarise")).to_be_enabled()
    shoot(page, "stream-link-refused")
    monkeypatch.setattr(Gateway, "status", 200)

    # It was only away, say: what was refused is tried again.
    expect(page.get_by_role("status")).to_have_text("Done.", timeout=20_000)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_page_that_is_reloaded_goes_on_with_its_answer_and_follows_another_link(
    browser: Browser, gateway: str, page_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "output", "The first.")
    page = opened(browser, page_url)
    ask(page, "Please.")
    expect(page.locator("#answer")).to_have_text("The first.")

    page.reload()

    expect(page.locator("#answer")).to_have_text("The first.")
    monkeypatch.setattr(Gateway, "output", "The second.")

    page.evaluate("(hash) => { location.hash = hash; }", quote(f"{gateway}/v1/stream/e-2?ticket=t", safe=""))

    expect(page.locator("#answer")).to_have_text("The second.")


def test_the_page_can_be_used_with_the_keyboard_alone(browser: Browser, page_url: str) -> None:
    page = opened(browser, page_url)

    page.keyboard.press("Tab")
    page.keyboard.type("Please.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("status")).to_have_text("Done.")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "second"
