"""The fuzzer: its bounded run, and that its books would show what it looks for."""

import time
from pathlib import Path

import pytest
import uvloop

from tests.hostile.client import Client
from tests.hostile.fuzz import QUIET, SETTINGS, Ledger, fuzz
from tests.hostile.lab import addresses, running
from tests.hostile.mutations import Attempt, Mutator
from tests.hostile.oracle import authentic_requests
from tests.hostile.senders import GITHUB, OTHER_SECRET, SENDERS, STRIPE, Lines, Sender, request
from tests.support import eventually

SEED, REQUESTS = 20261128, 50_000


@pytest.mark.long
@pytest.mark.embedded
@pytest.mark.timeout(240)
def test_mutated_requests_are_never_accepted_never_5xx_and_never_kept(tmp_path: Path) -> None:
    ledger = Ledger()
    with running(tmp_path, gateway=SETTINGS, more=QUIET) as lab:
        uvloop.run(fuzz(lab, SEED, REQUESTS, ledger, budget_s=200))
        eventually(lambda: lab.log.records >= ledger.answers["202"])

    figures = ledger.figures()
    assert ledger.requests >= REQUESTS
    assert [figure for figure in figures if figure.holds is False] == []
    # The mutations reach behind the signatures as well as in front of them.
    assert {"202", "400", "401", "404", "405", "413", "415", "429"} <= ledger.answers.keys()


@pytest.mark.embedded
async def test_a_repetition_is_known_by_its_answer_and_its_first_by_the_log(tmp_path: Path) -> None:
    sent = request(b"/webhooks/github", GITHUB.lines(b"{}", event_id=b"e1"), b"{}")
    with running(tmp_path, gateway=SETTINGS, more=QUIET) as lab:
        client = Client(lab.port, addresses)
        answers = [await client.well_framed(sent, 1) for _ in range(2)]
        client.close()

        assert answers == [([202], True)] * 2
        assert client.repeated == ["e1"]
        assert lab.log.event_ids() == {"e1"}


@pytest.mark.parametrize("sender", SENDERS, ids=[sender.source.decode() for sender in SENDERS])
def test_the_oracle_believes_a_signed_request_and_no_other(sender: Sender) -> None:
    body = b'{"a":1}'
    path = b"/webhooks/" + sender.source
    good = sender.lines(body, event_id=b"e1")
    forged = sender.lines(body, event_id=b"e1", secret=OTHER_SECRET)
    sent = [request(path, good, body), request(path, good, body + b" "), request(path, forged, body)]

    assert [authentic_requests(one, time.time()) for one in sent] == [1, 0, 0]
    assert authentic_requests(sent[0] * 3, time.time()) == 3
    assert authentic_requests(request(b"/webhooks/other", good, body), time.time()) == 0


def test_the_oracle_reads_what_a_lenient_server_would() -> None:
    body = b'{"a":1}'
    lines: Lines = GITHUB.lines(body, event_id=b"e1")
    chunked = request(
        b"/webhooks/github", [*lines, (b"transfer-encoding", b"chunked")], b"7\r\n" + body + b"\r\n0\r\n\r\n"
    )

    assert authentic_requests(chunked, time.time()) == 1
    assert authentic_requests(request(b"/webhooks/github", lines, body).replace(b"\r\n", b"\n"), time.time()) == 1
    assert authentic_requests(chunked[:-2], time.time()) == 0


def test_an_acceptance_without_proof_is_in_the_books() -> None:
    ledger = Ledger()
    forged = request(b"/webhooks/stripe", STRIPE.lines(b"{}", event_id=b"e", secret=OTHER_SECRET), b"{}")

    ledger.note(Attempt("bytes", forged), [202], in_time=True, now_s=time.time())
    ledger.note(Attempt("bytes", forged), [503], in_time=True, now_s=time.time())
    ledger.note(Attempt("bytes", forged), [], in_time=False, now_s=time.time())
    ledger.note(Attempt("untouched", forged, is_untouched=True), [401], in_time=True, now_s=time.time())
    ledger.unlogged = 1
    ledger.note_memory([10**8, 10**8, 2 * 10**8])

    failed = {figure.name: figure.value for figure in ledger.figures() if figure.holds is False}
    assert failed.pop("memory of the gateway, grown after the first slices") == pytest.approx(10**8 / 2**20)
    assert failed == {
        "answers of 500 and above": 1,
        "accepted forgeries": 1,
        "untouched requests that were refused": 1,
        "neither answered nor closed in time": 1,
        "202s that are not on the log": 1,
    }


def test_one_seed_makes_one_sequence_of_kinds() -> None:
    first, second = (Mutator("7/0") for _ in range(2))

    assert [first.attempt().kind for _ in range(200)] == [second.attempt().kind for _ in range(200)]


def test_books_are_kept_between_runs(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.note(Attempt("bytes", b""), [401], in_time=True, now_s=0)
    ledger.write(tmp_path / "new" / "books.json")

    assert Ledger.read(tmp_path / "new" / "books.json") == ledger
    assert Ledger.read(tmp_path / "none") == Ledger()
