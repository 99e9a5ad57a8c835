"""The topology, and the settings of Faust that keep it from losing or hanging."""

import asyncio
from pathlib import Path
from typing import Any, cast

import faust
import pytest
from faust.types.enums import ProcessingGuarantee

from contracts.settings import build, parse
from streams.app import create_app


def make_app(**worker: Any) -> faust.App:
    document = {"version": 1, "kafka": {"topic_prefix": "t"}, "worker": worker}
    settings = build(parse(str(document), "test"), {}, Path())
    return create_app(settings, cast("Any", None), cast("Any", None))


def test_one_agent_per_lane_with_one_stream_each() -> None:
    agents = make_app().agents

    assert sorted(agents) == ["events.bulk", "events.interactive", "events.retries", "events.standard"]
    assert {agent.concurrency for agent in agents.values()} == {1}


def test_a_worker_may_serve_some_lanes_only_and_always_serves_the_retries() -> None:
    app = make_app(lanes=["bulk"])

    assert list(app.agents) == ["events.bulk", "events.retries"]
    assert [list(cast("Any", agent.channel).topics) for agent in app.agents.values()] == [
        ["t.events.bulk.v1"],
        ["t.retries.v1"],
    ]


def test_records_reach_the_agent_as_bytes() -> None:
    for agent in make_app().agents.values():
        channel = cast("Any", agent.channel)
        assert (channel.key_serializer, channel.value_serializer) == ("raw", "raw")


def test_what_is_known_to_hang_or_to_lose_is_switched_off() -> None:
    # Faust's settings are descriptors that type checkers read in their own ways.
    conf = cast("Any", make_app().conf)

    assert conf.broker_max_poll_interval >= 100_000
    assert conf.table_standby_replicas == 0
    assert conf.autodiscover is False
    assert conf.web_enabled is False
    assert conf.topic_disable_leader is True
    assert conf.topic_allow_declare is False
    assert conf.stream_wait_empty is True
    assert conf.consumer_auto_offset_reset == "earliest"
    assert conf.processing_guarantee is ProcessingGuarantee.AT_LEAST_ONCE


def test_session_and_rebalance_come_from_the_worker_section() -> None:
    conf = make_app(session_timeout_s=10, rebalance_timeout_s=40, drain_timeout_s=24, instance_id="pod-1").conf

    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval, conf.broker_rebalance_timeout) == (10, 2, 40)
    assert conf.consumer_group_instance_id == "pod-1"
    # aiokafka refuses a request timeout that is not above the session timeout.
    assert conf.broker_request_timeout > conf.broker_session_timeout


async def test_the_subscription_does_not_wait_a_second_for_tables() -> None:
    tables = cast("Any", make_app()).tables
    clock = asyncio.get_running_loop()
    start_s = clock.time()
    await tables.sleep(1.0)

    assert clock.time() - start_s < 0.5


def test_a_token_is_shown_where_the_section_kafka_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECRET", "s")
    section = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "oauth": {
            "token_url": "https://x/t",
            "client_id": "me",
            "client_secret": "env:KAFKA_SECRET",
            "extensions": {"a": "b"},
        },
    }
    settings = build(parse(str({"version": 1, "kafka": section}), "test"), {}, Path())
    [found] = (cast("Any", create_app(settings, cast("Any", None), cast("Any", None)).conf).broker_credentials,)

    assert (found.protocol.value, found.mechanism.value) == ("SASL_SSL", "OAUTHBEARER")
    assert found.oauth_cb.extensions() == {"a": "b"}
