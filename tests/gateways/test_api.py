"""Hygiene of requests, errors into answers, log lines, and: no bytes get a 5xx."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from contracts.logs import FIELDS
from contracts.settings import Settings
from gateways.asgi import Message
from tests.gateways.driver import API_KEY, CONFIGURATION, Gateway, as_caller, github_headers
from tests.support import eventually_async

OWN_FIELDS = {"event", "log_level", "component"}


@pytest.mark.parametrize("hosts", [[], [b""], [b"a", b"b"], [b"a", b"a"]])
async def test_exactly_one_host_is_needed(gateway: Gateway, hosts: list[bytes]) -> None:
    answer = await gateway.call("GET", "/healthz", hosts=hosts)

    assert answer.status == 400
    assert answer.headers["connection"] == "close"


async def test_a_long_url_is_414(gateway: Gateway) -> None:
    assert (await gateway.call("GET", "/" + "u" * 9000)).status == 414
    assert (await gateway.call("GET", "/healthz?" + "q" * 9000)).status == 414


async def test_large_headers_are_431(gateway: Gateway) -> None:
    assert (await gateway.call("GET", "/healthz", {"x": "y" * 33_000})).status == 431


@pytest.mark.parametrize(("method", "target"), [("CONNECT", b""), ("OPTIONS", b"*")])
async def test_a_method_that_needs_no_path_is_405(gateway: Gateway, method: str, target: bytes) -> None:
    answer = await gateway.call(method, target)

    assert answer.status == 405
    assert "allow" in answer.headers


async def test_any_other_request_without_a_path_is_400(gateway: Gateway) -> None:
    assert (await gateway.call("GET", b"")).status == 400


@pytest.mark.parametrize("codings", [[b"gzip, chunked"], [b"identity", b"chunked"], [b"chunked", b"chunked"], [b""]])
async def test_a_coding_that_nobody_undoes_is_400_and_closed(gateway: Gateway, codings: list[bytes]) -> None:
    answer = await gateway.call("POST", "/webhooks/github", [(b"transfer-encoding", coding) for coding in codings])

    assert answer.status == 400
    assert answer.json()["reason"] == "framing_invalid"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", [b"/webhooks/github", b"/v1/events", b"/v1/invoke", b"/v1/stream"])
@pytest.mark.parametrize("is_whole", [True, False])
async def test_nothing_of_a_refused_request_is_kept_behind_its_answer(
    gateway: Gateway, path: bytes, *, is_whole: bool
) -> None:
    # granian closes a connection with an unread body when the last reference to its `receive` is gone.
    class Connection:
        async def receive(self) -> dict[str, Any]:
            if not is_whole:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    headers = [(b"host", b"a"), (b"content-length", b"2"), (b"authorization", b"Bearer " + API_KEY.encode())]
    scope = {"type": "http", "method": "POST", "raw_path": path, "headers": headers}
    statuses: list[int | None] = []
    connection = Connection()
    kept = weakref.ref(connection)
    gc.disable()
    try:
        # A task of its own, as each request has: a task keeps the cancellation that ended a wait of it.
        await asyncio.create_task(gateway.api(scope, connection.receive, send))
        del connection
        assert kept() is None
        assert statuses[0] == (408 if not is_whole else 401 if path.startswith(b"/webhooks") else 400)
    finally:
        gc.enable()


async def test_a_fault_of_ours_is_503_without_a_word_about_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        message = "/etc/inside"
        raise RuntimeError(message)

    monkeypatch.setattr("gateways.endpoints.webhooks.produce_once", broken)

    answer = await gateway.webhook()

    assert answer.status == 503
    assert "retry-after" in answer.headers
    assert b"inside" not in answer.body


async def test_an_accepted_request_is_one_line_with_known_fields(gateway: Gateway) -> None:
    with capture_logs() as lines:
        await gateway.webhook()

    (line,) = lines
    assert line["event"] == "request.accepted"
    assert line["event_id"] == "delivery-1"
    assert line["key_id"] == "current"
    assert set(line) - OWN_FIELDS <= FIELDS


async def test_a_refused_request_is_one_line_with_the_private_reason(gateway: Gateway) -> None:
    with capture_logs() as lines:
        await gateway.webhook(b"{}", x_hub_signature_256="sha256=" + "0" * 64)

    (line,) = lines
    assert (line["event"], line["status"], line["detail"]) == ("request.refused", 401, "wrong_signature")
    assert set(line) - OWN_FIELDS <= FIELDS


async def test_asking_for_health_is_no_line(gateway: Gateway) -> None:
    with capture_logs() as lines:
        await gateway.call("GET", "/healthz")
        gateway.producer.set_unreachable()
        await gateway.call("GET", "/readyz")

    assert lines == []


async def test_what_comes_from_outside_is_escaped_in_the_log(gateway: Gateway) -> None:
    with capture_logs() as lines:
        await gateway.call("GET", b"/a\nb\x1b[31m" + b"x" * 500)

    assert lines[0]["path"].startswith("/a\\nb\\x1b[31m")
    assert len(lines[0]["path"]) < 300


async def test_requests_in_progress_are_known(gateway: Gateway) -> None:
    gateway.producer.hold_acks()
    asking = asyncio.ensure_future(gateway.webhook())
    await eventually_async(lambda: gateway.producer.buffered_bytes)

    assert len(gateway.api.in_progress) == 1
    gateway.producer.release_acks()
    await asking
    assert not gateway.api.in_progress


_HEADER_NAMES = st.sampled_from(
    [b"ce-id", b"ce-type", b"ce-source", b"ce-specversion", b"ce-time", b"ce-x", b"content-type", b"content-length",
     b"content-encoding", b"x-hub-signature-256", b"x-github-event", b"idempotency-key", b"penstock-lane",
     b"traceparent", b"authorization", b"host"]
)  # fmt: skip
_VALUES = st.binary(max_size=30) | st.sampled_from(
    [b"1.0", b"application/cloudevents+json", b"application/json", b"2026-01-01T00:00:00Z", b"crm", b"bulk"]
)
_BODIES = st.binary(max_size=80) | st.sampled_from(
    [b'{"specversion":"1.0","id":"1","source":"crm","type":"t"}', b'{"specversion":"1.0"}', b"[]", b'{"data_base64":1}']
)
_TARGETS = st.sampled_from([b"/webhooks/github", b"/v1/events", b"/v1/results/x", b"/"]) | st.binary(max_size=20).map(
    lambda tail: b"/v1/results/" + tail
)


@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    target=_TARGETS,
    lines=st.lists(st.tuples(_HEADER_NAMES, _VALUES), max_size=6),
    body=_BODIES,
    is_signed=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("secret_environment")
def test_no_bytes_get_anything_but_2xx_or_4xx(
    method: str, target: bytes, lines: list[Any], body: bytes, is_signed: bool
) -> None:
    async def ask() -> int:
        gateway = Gateway(Settings.model_validate(CONFIGURATION))
        await gateway.producer.start()
        credentials = github_headers(body) | as_caller() if is_signed else {}
        pairs = [(name.encode(), value.encode()) for name, value in credentials.items()]
        return (await gateway.call(method, target, [*pairs, *lines], body)).status

    status = asyncio.run(ask())
    assert 200 <= status < 300 or 400 <= status < 500
