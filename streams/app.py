"""The topology on one screen: event topics -> engine -> pipeline -> outcome topics."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import faust
from faust.auth import OAuthCredentials
from faust.tables import TableManager
from mode.utils.times import Seconds

from contracts.kafka_config import faust_config
from contracts.settings import Settings
from contracts.topics import RETRY_LANE, Topics
from streams.agents import events
from streams.connections import tokens
from streams.engine.engine import Engine
from streams.fetching import BUNDLE_RECORDS
from streams.instance import client_id
from streams.pipeline import Pipeline

# By code purely client-side in aiokafka; its default ends in a permanent silent hang of slow agents and of standbys.
_NEVER_S = 100_000_000.0
# Small fetches hold many partitions' records instead of one's; the lookahead is by ready keys (docs/faust.md).
_FETCH_BYTES = 131_072


def create_app(settings: Settings, engine: Engine, pipeline: Pipeline) -> faust.App:
    """Return the Faust app with one agent per lane; explicit registration, no autodiscovery.

    Raises:
        ConfigError: the Kafka section cannot be used.
    """
    worker = settings.worker
    app = faust.App(
        worker.app_id,
        **_connection(settings),
        store="memory://",
        TableManager=_NoTables,
        datadir=_datadir(),
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_client_id=client_id(worker.app_id),
        broker_max_poll_interval=_NEVER_S,
        broker_session_timeout=worker.session_timeout_s,
        broker_heartbeat_interval=worker.session_timeout_s / 5,
        broker_request_timeout=max(30.0, worker.session_timeout_s + 5),
        broker_rebalance_timeout=worker.rebalance_timeout_s,
        broker_commit_interval=worker.commit_interval_s,
        consumer_metadata_max_age_ms=15_000,
        consumer_max_fetch_size=_FETCH_BYTES,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=worker.instance_id,
        table_standby_replicas=0,
        # In bundles; as many records as twice the slots when they are full.
        stream_buffer_maxsize=max(16, 2 * worker.max_in_flight // BUNDLE_RECORDS),
        stream_wait_empty=True,
    )
    topics = Topics(settings.kafka.topic_prefix)
    for lane in worker.lanes:
        events.register(app, topics.events(lane), lane, engine, pipeline)
    events.register(app, topics.retries, RETRY_LANE, engine, pipeline)
    return app


class _NoTables(TableManager):
    """Faust's tables, of which there are none."""

    async def sleep(self, n: Seconds) -> None:  # noqa: ARG002 - mode's signature
        """Go on at once: the one sleep is a second before it subscribes, so that tables can be added."""
        await asyncio.sleep(0)


def _datadir() -> Path:
    """Return a folder that Faust may make: it insists on one, and the working directory may be read-only."""
    return Path(tempfile.gettempdir()) / f"penstock-faust-{os.getuid()}"


def _connection(settings: Settings) -> dict[str, Any]:
    """Return Faust's connection settings."""
    plain = faust_config(settings.kafka)
    options: dict[str, Any] = {"broker": plain["broker"]}
    if plain["sasl_mechanism"] == "OAUTHBEARER":
        options["broker_credentials"] = OAuthCredentials(
            oauth_cb=tokens(settings.kafka), ssl_context=plain["ssl_context"]
        )
    elif plain["sasl_mechanism"]:
        options["broker_credentials"] = faust.SASLCredentials(
            mechanism=plain["sasl_mechanism"],
            username=plain["sasl_username"],
            password=plain["sasl_password"],
            ssl_context=plain["ssl_context"],
        )
    elif plain["ssl_context"] is not None:
        options["broker_credentials"] = faust.SSLCredentials(plain["ssl_context"])
    return options
