"""Result tickets."""

import random

import pytest
from itsdangerous import URLSafeSerializer
from structlog.testing import capture_logs

from contracts.codec import Position
from contracts.errors import ConfigError, UnknownResult
from contracts.settings import SecretRef
from gateways.egress.tickets import Ticket, Tickets

POSITION = Position("penstock.events.bulk.v1", 3, 2**40, 1_700_000_000_000)


def _tickets(monkeypatch: pytest.MonkeyPatch, secret: str = "t" * 32) -> Tickets:
    monkeypatch.setenv("TEST_TICKET_SECRET", secret)
    return Tickets(SecretRef("env:TEST_TICKET_SECRET"))


@pytest.mark.parametrize("event_id", ["e1", "a/b c\u00fc%&?#", "x" * 256])
def test_a_ticket_gives_back_what_it_was_issued_for(event_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _tickets(monkeypatch).issue("crm", event_id, POSITION, "billing")

    assert _tickets(monkeypatch).read(text) == Ticket("crm", event_id, POSITION, "billing")
    assert text.isascii()
    assert not set(text) & set("/?&#% ")


@pytest.mark.parametrize("event_id", ["e1", 'a/b c\u00fc%&?#"', "x" * 256, "\u7532" * 256])
def test_a_ticket_is_what_the_library_writes(event_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = _tickets(monkeypatch)
    text = tickets.issue("crm", event_id, POSITION)

    assert tickets._serializer.loads(text) == ["crm", event_id, *POSITION, ""]
    assert len(text) < 2048


def test_the_longest_ticket_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = _tickets(monkeypatch)
    rare = random.Random(1)  # noqa: S311 - seeded
    source, event_id = ("".join(chr(rare.randrange(0x20000, 0x2A6D0)) for _ in range(256)) for _ in range(2))
    position = POSITION._replace(topic=f"{rare.randbytes(110).hex()}.events.interactive.v1")

    assert tickets.read(tickets.issue(source, event_id, position)).id == event_id


def test_a_changed_ticket_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = _tickets(monkeypatch)
    text = tickets.issue("crm", "e1", POSITION)
    for at in range(len(text)):
        with pytest.raises(UnknownResult):
            tickets.read(
                text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :] if at < len(text) - 1 else text[:-1]
            )


def test_a_ticket_of_another_key_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = _tickets(monkeypatch, "u" * 32).issue("crm", "e1", POSITION)

    with pytest.raises(UnknownResult):
        _tickets(monkeypatch).read(text)


@pytest.mark.parametrize("payload", [{}, [], ["crm"], "text", None])
def test_a_signed_text_that_is_no_ticket_is_unknown(payload: object, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = _tickets(monkeypatch)
    serializer: URLSafeSerializer = tickets._serializer

    with pytest.raises(UnknownResult):
        tickets.read(serializer.dumps(payload))


@pytest.mark.parametrize("text", ["", ".", "a.b", ".a.b", "\u00fc", "\x00", "." + "A" * 2000, "x" * 100_000])
def test_any_other_text_is_unknown(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownResult):
        _tickets(monkeypatch).read(text)


def test_a_text_longer_than_any_ticket_is_not_even_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = _tickets(monkeypatch)
    noise = "".join(chr(0x4E00 + (7919 * number) % 20_000) for number in range(2000))

    with pytest.raises(UnknownResult):
        tickets.read(tickets.issue("crm", noise, POSITION))


def test_tickets_of_former_keys_are_read_and_new_ones_are_made_with_the_current_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_NEXT", "n" * 32)
    now, later = SecretRef("env:TEST_TICKET_SECRET"), SecretRef("env:TEST_NEXT")
    before = _tickets(monkeypatch).issue("crm", "e1", POSITION)

    # First every gateway learns to read the next one, then they change over, then the old one goes.
    ready, changed, done = Tickets(now, [later]), Tickets(later, [now]), Tickets(later)
    assert ready.issue("crm", "e1", POSITION) == before
    after = changed.issue("crm", "e1", POSITION)
    assert after != before
    assert [tickets.read(text).id for tickets in (ready, changed) for text in (before, after)] == ["e1"] * 4
    assert done.read(after).id == "e1"
    with pytest.raises(UnknownResult):
        done.read(before)
    # The long form is the library's own.
    assert done.read(changed.issue("crm", "x" * 900, POSITION)).id == "x" * 900


def test_a_short_former_secret_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TICKET_SECRET", "t" * 32)
    monkeypatch.setenv("TEST_NEXT", "n" * 31)
    with pytest.raises(ConfigError, match=r"gateway.former_ticket_secrets\[0\]: has 31 bytes"):
        Tickets(SecretRef("env:TEST_TICKET_SECRET"), [SecretRef("env:TEST_NEXT")])


def test_a_short_secret_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gateway.ticket_secret.*needs 32"):
        _tickets(monkeypatch, "t" * 31)


def test_without_a_secret_a_random_one_is_used_and_said_so() -> None:
    with capture_logs() as lines:
        text = Tickets(None).issue("crm", "e1", POSITION)

    assert lines[0]["log_level"] == "warning"
    with pytest.raises(UnknownResult):
        Tickets(None).read(text)
