"""The error tree."""

import inspect
import re

import pytest

from contracts import errors
from contracts.errors import ConfigurationFault, PenstockError, Retryable, Terminal

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PenstockError)]
BASES = {"PenstockError", "Rejected", "Retryable", "Terminal", "ConfigurationFault"}
# HTTP has a code for it and the caller can act on it.
STATUSES = {400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 502, 503, 504}


def test_every_kind_has_a_slug_of_its_own() -> None:
    slugs = [kind.reason for kind in KINDS]

    assert sorted(slugs) == sorted(set(slugs))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_bounded_slug_a_known_status_and_a_sentence(kind: type[PenstockError]) -> None:
    assert re.fullmatch(r"[a-z][a-z_]{2,30}", kind.reason)
    assert kind.http_status in STATUSES
    assert kind.__name__ in BASES or (kind.__doc__ or "").startswith(("Raise when", "Base of"))


def test_the_drawn_tree_names_every_kind() -> None:
    drawn = set(re.findall(r"\b[A-Z][A-Za-z]+\b", (errors.__doc__ or "").partition("\n")[2]))

    assert {kind.__name__ for kind in KINDS} - drawn == set()


def test_retryable_is_what_may_pass_by_itself() -> None:
    retryable = {kind.__name__ for kind in KINDS if kind.retryable}

    assert retryable == {kind.__name__ for kind in KINDS if issubclass(kind, Retryable | errors.Busy)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, Terminal | ConfigurationFault)])
def test_what_no_retry_mends_is_not_retryable(kind: type[PenstockError]) -> None:
    assert kind.retryable is False


def test_a_timeout_is_possibly_billed_and_an_outage_is_not() -> None:
    assert errors.ProviderTimeout("x").possibly_billed
    assert not errors.ProviderUnavailable("x").possibly_billed


def test_a_refused_signature_does_not_tell_more_than_its_slug() -> None:
    assert str(errors.BadSignature("wrong_signature")) == "signature refused: wrong_signature"
