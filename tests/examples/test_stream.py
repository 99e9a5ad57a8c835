"""The streaming example holds together: configuration, route, page and its server; the browser tests run it whole."""

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer

import pytest

from contracts.envelope import Event
from contracts.errors import OutputInvalid, OutputTruncated
from contracts.settings import Settings, load
from examples.stream import server
from examples.stream.server import FILES, MAX_BODY_BYTES, PAGE, Handler
from gateways.cli import config_check
from gateways.ingress.callers import Callers
from streams.steps.prompt import PromptTemplate
from streams.steps.route import Router
from tests.support import ROOT, free_port

CONFIG = ROOT / "examples" / "stream" / "penstock.yaml"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PENSTOCK_API_KEY", "an-api-key-of-my-own")
    monkeypatch.setenv("PENSTOCK_TICKET_SECRET", "at-least-32-characters-of-any-kind")
    return load(CONFIG)


@pytest.fixture
def page() -> Iterator[http.client.HTTPConnection]:
    """Give a connection to the page's server, whose gateway is away."""
    handler = partial(Handler, gateway=f"http://127.0.0.1:{free_port()}", api_key="an-api-key-of-my-own")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        yield connection
        connection.close()
        server.shutdown()
        thread.join()


def test_the_page_has_words_for_every_way_in_which_an_answer_is_no_result() -> None:
    words = (ROOT / "examples" / "stream" / "page" / "page.js").read_text(encoding="utf-8")

    for kind in (OutputInvalid, OutputTruncated):
        assert f"  {kind.reason}: " in words


def answer(page: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    page.request(method, path, body)
    response = page.getresponse()
    return response.status, response.read().decode()


def test_the_configuration_passes_its_check(settings: Settings) -> None:
    assert config_check.problems(settings, config_check.document(CONFIG), None) == []
    assert list(config_check.warnings(settings, config_check.document(CONFIG))) == []


def test_what_the_page_sends_has_its_route_and_its_key(settings: Settings) -> None:
    event = Event(id="e", source="page", type="com.example.text.submitted", data=b'{"text": "Hello."}')
    route = Router(settings.routes).route(event)
    (message,) = PromptTemplate(route.prompt, route.name).render(event)

    assert (route.name, message.content) == ("summary", "Hello.")
    assert Callers(settings.gateway.api_keys)


def test_the_page_has_its_files_and_nothing_else_is_served(page: http.client.HTTPConnection) -> None:
    assert {answer(page, "GET", path)[0] for path in FILES} == {200}
    assert answer(page, "GET", "/../server.py")[0] == 404
    assert answer(page, "GET", "/server.py")[0] == 404


def test_a_gateway_that_is_away_is_said_in_words(page: http.client.HTTPConnection) -> None:
    assert answer(page, "POST", "/ask", b"text") == (502, '{"message": "the gateway does not answer"}')
    assert answer(page, "POST", "/ask", b"")[0] == 400


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        assert not re.search(r"https?://|@import|eval\(|innerHTML", path.read_text("utf-8")), path.name


def test_a_length_that_is_no_number_is_refused(page: http.client.HTTPConnection) -> None:
    for given in ("many", "-1", "9" * 5000):
        page.putrequest("POST", "/ask")
        page.putheader("Content-Length", given)
        page.endheaders()
        response = page.getresponse()

        assert (response.status, response.read()) == (400, b'{"message": "send some text, at most 100 kB"}')


def test_another_site_in_the_same_browser_cannot_spend_on_the_key(page: http.client.HTTPConnection) -> None:
    for site in ("cross-site", "same-site", "none"):
        page.request("POST", "/ask", b"text", {"Sec-Fetch-Site": site})
        response = page.getresponse()

        assert (response.status, response.read()) == (403, b'{"message": "only this page may ask"}')


def test_the_page_knows_how_much_its_server_takes() -> None:
    found = re.search(r"^const MAX_BODY_BYTES = ([0-9_]+);$", (PAGE / "page.js").read_text("utf-8"), re.MULTILINE)

    assert found is not None
    assert int(found[1]) == MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--port", "x"], "argument --port: invalid port value: 'x'"),
        (["--port", "70000"], "argument --port: 70000: expected 0 to 65535"),
        (["--gateway", "localhost:8080"], "argument --gateway: 'localhost:8080': expected http://HOST:PORT"),
        (["--gateway", "http://["], "argument --gateway: invalid url value: 'http://['"),
        (["--gateway", "http://a; script-src *"], "expected http://HOST:PORT"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    args: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_API_KEY", "k")

    with pytest.raises(SystemExit) as ended:
        server.main(args)

    assert (ended.value.code, said in capsys.readouterr().err) == (2, True)


def test_without_its_key_the_server_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PENSTOCK_API_KEY", raising=False)

    with pytest.raises(SystemExit) as ended:
        server.main([])

    assert (ended.value.code, "PENSTOCK_API_KEY is not set" in capsys.readouterr().err) == (2, True)


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_API_KEY", "k")

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        server.main(["--port", str(taken.getsockname()[1])])

    assert (ended.value.code, "Address already in use; choose another one" in capsys.readouterr().err) == (2, True)
