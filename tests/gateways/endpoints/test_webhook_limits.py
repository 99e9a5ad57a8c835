"""POST /webhooks/{source} under limits: who is refused, with what, and who is not."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts import metrics
from contracts.settings import Settings
from gateways.ingress.backlog import Backlog
from tests.gateways.driver import API_KEY, CONFIGURATION, Answer, Gateway, github_headers

pytestmark = pytest.mark.usefixtures("secret_environment")

GOOD, EVIL = "203.0.113.5", "198.51.100.9"
BODY = b'{"repository":{"full_name":"a/b"}}'
FORGED = {"x-hub-signature-256": "sha256=" + "0" * 64}


async def gateway_with(overload: dict[str, Any] | None = None, **source: Any) -> Gateway:
    """Return a gateway with some limits, behind a proxy at the address that the driver's connections have."""
    # Each delivery is to be an event here, though they are all alike.
    github = CONFIGURATION["sources"]["github"] | {"idempotency": {"by": "none"}} | source
    limits = {"trusted_proxies": ["192.0.2.0/24"]} | (overload or {})
    changes = {"gateway": CONFIGURATION["gateway"] | {"overload": limits}, "sources": {"github": github}}
    gateway = Gateway(Settings.model_validate(CONFIGURATION | changes))
    await gateway.producer.start()
    return gateway


async def send(gateway: Gateway, peer: str = GOOD, **changes: str) -> Answer:
    headers = github_headers(BODY) | {"x-forwarded-for": peer} | {k.replace("_", "-"): v for k, v in changes.items()}
    return await gateway.call("POST", "/webhooks/github", headers, BODY, connected="192.0.2.1")


async def forge(gateway: Gateway, peer: str = EVIL) -> Answer:
    return await send(gateway, peer, x_hub_signature_256="sha256=" + "0" * 64)


async def test_a_source_over_its_limit_gets_429_and_nothing_is_produced() -> None:
    gateway = await gateway_with(limit={"events_per_s": 0.05, "burst": 2})
    answers = [await send(gateway) for _ in range(3)]

    assert [answer.status for answer in answers] == [202, 202, 429]
    assert int(answers[2].headers["retry-after"]) >= 19
    assert answers[2].json()["reason"] == "rate_limited"
    assert len(gateway.records) == 2


async def test_a_source_over_its_limit_is_refused_before_its_body_is_read() -> None:
    gateway = await gateway_with(limit={"events_per_s": 0.05, "burst": 1})
    await send(gateway)
    headers = github_headers(BODY) | {"content-length": "500"}

    answer = await gateway.call("POST", "/webhooks/github", headers, [])

    assert (answer.status, answer.headers["connection"]) == (429, "close")


@pytest.mark.parametrize(
    ("changes", "closes"),
    [({}, False), ({"content-length": "20000"}, True), ({"expect": "100-continue"}, True)],
)
async def test_a_small_body_that_is_there_does_not_cost_the_connection(changes: dict[str, str], closes: bool) -> None:
    gateway = await gateway_with(limit={"events_per_s": 0.05, "burst": 1})
    await send(gateway)

    answer = await gateway.call("POST", "/webhooks/github", github_headers(BODY) | changes, BODY)

    assert (answer.status, "connection" in answer.headers) == (429, closes)


async def test_a_flood_of_forged_events_is_401_then_429_and_the_good_sender_does_not_notice() -> None:
    gateway = await gateway_with({"bad_signatures": {"per_peer_per_s": 0.01, "per_peer_burst": 5}})
    forged = [(await forge(gateway)).status for _ in range(50)]
    good = [(await send(gateway, peer)).status for peer in (GOOD, EVIL)]

    assert forged == [401] * 5 + [429] * 45
    assert good == [202, 202]


async def test_a_good_signature_on_an_event_without_its_id_is_no_bad_one() -> None:
    gateway = await gateway_with({"bad_signatures": {"per_peer_per_s": 0.01, "per_peer_burst": 2}})
    useless = [(await send(gateway, x_github_delivery="")).status for _ in range(5)]

    assert useless == [400] * 5
    assert not gateway.parts.limits.bad.is_suspect("github", GOOD)


async def test_an_event_without_its_id_counts_against_its_sources_limit() -> None:
    gateway = await gateway_with(limit={"events_per_s": 0.05, "burst": 2})

    assert [(await send(gateway, x_github_delivery="")).status for _ in range(3)] == [400, 400, 429]


async def test_the_answer_to_a_forged_event_is_the_same_from_everybody_over_budget() -> None:
    gateway = await gateway_with({"bad_signatures": {"per_peer_per_s": 0.01, "per_peer_burst": 1}})
    await forge(gateway)
    wrong = await forge(gateway)
    missing = await send(gateway, EVIL, x_hub_signature_256="")

    assert wrong.status == 429
    assert "retry-after" in wrong.headers
    assert wrong == missing


async def test_refusals_are_counted_by_limit() -> None:
    labels = {"source": "github", "limit": "bad_signatures"}
    before = metrics.REGISTRY.get_sample_value("penstock_webhook_rate_limited_total", labels) or 0.0
    gateway = await gateway_with({"bad_signatures": {"per_peer_per_s": 0.01, "per_peer_burst": 1}})
    for _ in range(4):
        await forge(gateway)

    assert metrics.REGISTRY.get_sample_value("penstock_webhook_rate_limited_total", labels) == before + 3


async def test_a_flood_is_one_log_line_with_the_address() -> None:
    gateway = await gateway_with({"bad_signatures": {"per_peer_per_s": 0.01, "per_peer_burst": 1}})
    with capture_logs() as lines:
        for _ in range(20):
            await forge(gateway)

    assert [(line["status"], line["peer"]) for line in lines] == [(401, EVIL), (429, EVIL)]


async def test_forwarded_addresses_of_strangers_do_not_make_new_budgets() -> None:
    gateway = await gateway_with({"bad_signatures": {"per_peer_per_s": 0.01, "per_peer_burst": 3}})
    statuses = []
    for number in range(6):
        headers = github_headers(BODY) | FORGED | {"x-forwarded-for": f"10.0.0.{number}"}
        statuses.append((await gateway.call("POST", "/webhooks/github", headers, BODY, connected=EVIL)).status)

    assert statuses == [401] * 3 + [429] * 3


async def test_an_address_that_is_not_allowed_is_403_unread_and_a_forged_header_does_not_help() -> None:
    gateway = await gateway_with(allow_networks=["203.0.113.0/24"])

    assert (await send(gateway, GOOD)).status == 202
    refused = await send(gateway, f"{GOOD}, {EVIL}")
    assert (refused.status, refused.headers["connection"]) == (403, "close")
    direct = github_headers(BODY) | {"x-forwarded-for": GOOD}
    assert (await gateway.call("POST", "/webhooks/github", direct, BODY, connected=EVIL)).status == 403


async def test_a_lane_that_is_behind_is_503_for_webhooks_and_api_events_of_that_lane_only() -> None:
    gateway = await gateway_with({"max_lag": {"standard": 10}})
    backlog = Backlog(gateway.parts.settings.overload, {"standard": "penstock.events.standard.v1"}, lambda _: 11)
    object.__setattr__(gateway.parts, "backlog", backlog)
    await backlog.look()
    event = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json", "ce-type": "x"}

    webhook = await send(gateway)
    posted = await gateway.call("POST", "/v1/events", event | {"penstock-lane": "standard"}, b"{}")
    other = await gateway.call("POST", "/v1/events", event | {"penstock-lane": "bulk"}, b"{}")

    assert (webhook.status, webhook.json()["reason"]) == (503, "backlogged")
    assert int(webhook.headers["retry-after"]) >= 1
    assert posted.status == 503
    assert other.status == 202
