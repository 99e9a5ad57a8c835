"""The gateway's benchmarks: what the clients send, and how their ledgers are read."""

import base64
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from bench.gateway.controls.signature import is_authentic
from bench.gateway.crash import Ledger
from bench.gateway.flood import Plan
from bench.gateway.sides import SECRET, Site, document
from bench.gateway.wire import bodies, rendered
from contracts.settings import load
from contracts.topics import Topics
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES
from gateways.ingress.signatures import SignatureVerifier
from gateways.ingress.verifying import Incoming

KEY = base64.b64decode(SECRET)


def _headers(head: bytes) -> list[tuple[bytes, bytes]]:
    return [(line.split(b": ")[0], line.split(b": ")[1]) for line in head.split(b"\r\n")[1:-2]]


def test_the_configuration_of_a_run_is_one_that_penstock_takes(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump(document(Site("127.0.0.1:9092", Topics("bench")), 8080, {})), "utf-8")

    assert [*load(file, {}).sources] == ["bench"]


@pytest.mark.parametrize("size_bytes", [200, 1000, 20_000])
def test_bodies_are_json_of_the_size_that_is_asked_for(size_bytes: int) -> None:
    for body in bodies(size_bytes, seed=1):
        assert len(body) == size_bytes
        json.loads(body)


def test_every_request_has_an_id_of_its_own_and_a_good_signature() -> None:
    verifier = SignatureVerifier(SCHEMES["standard-webhooks"], [Key("k", KEY, KEY)])
    requests = rendered(SECRET, 300, 100, seed=1)
    verified = [verifier.verify(Incoming(_headers(head), body), datetime.now(UTC)) for head, body in requests]

    assert len({one.id for one in verified}) == 100


def test_the_controls_accept_what_is_signed_and_nothing_else() -> None:
    head, body = rendered(SECRET, 300, 1, seed=1)[0]
    headers = dict(_headers(head))
    signed = (headers[b"webhook-id"], headers[b"webhook-timestamp"], headers[b"webhook-signature"])
    old = str(int(time.time()) - 400).encode()

    assert is_authentic(KEY, *signed, body)
    assert not is_authentic(KEY, *signed, body + b" ")
    assert not is_authentic(KEY, b"other", *signed[1:], body)
    assert not is_authentic(KEY, signed[0], old, signed[2], body)
    assert not is_authentic(KEY[1:], *signed, body)


def test_a_flood_grows_evenly_stays_and_stops() -> None:
    plan = Plan(0, 0, "", 1, rate=100.0, ramp_s=10.0, plateau_s=5.0, most_connections=1)

    assert [plan.due(at_s) for at_s in (0.0, 5.0, 10.0, 12.0, 15.0, 99.0)] == [0, 125, 500, 700, 1000, 1000]


def test_the_ledger_tells_lost_events_from_repeated_ones() -> None:
    ledger = Ledger(promised={b"a": b"1", b"b": b"2", b"c": b"3"})
    ledger.found.update([b"a", b"b", b"b", b"b", b"without a 202"])

    assert ledger.lost == 1
    assert ledger.extra == 2
