"""The code for receivers on the page about callbacks does what the page says."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from contracts.settings import SecretRef, SourceSecret
from gateways.egress.notify_body import body_of
from gateways.egress.notify_signing import new_ed25519_pair, new_hmac_secret, resolve_keys, signed_headers
from tests.docs.pages import blocks
from tests.suites.egress import result_item
from tests.support import ROOT

BODY = body_of(result_item(1))


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Run the page's code."""
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs/callbacks.md", "python"):
        exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 - our own page
    return names


def _headers(folder: Path, secret: str, age: timedelta = timedelta()) -> dict[str, str]:
    file = folder / "secret"
    file.write_text(secret)
    keys = resolve_keys("egress.crm", [SourceSecret(id="k", value=SecretRef(f"file:{file}"))])
    return signed_headers(keys, result_item(1).outcome.result_id, BODY, datetime.now(UTC) - age)[0]


def test_a_callback_is_taken_once(page: dict[str, Any], tmp_path: Path) -> None:
    secret, seen = new_hmac_secret(), set[str]()
    headers = _headers(tmp_path, secret)

    assert page["take"](secret, headers, BODY, seen)["type"] == "penstock.result.v1"
    assert page["take"](secret, headers, BODY, seen) is None


def test_a_forged_callback_is_not_taken(page: dict[str, Any], tmp_path: Path) -> None:
    secret = new_hmac_secret()
    headers = _headers(tmp_path, secret)

    with pytest.raises(standardwebhooks.WebhookVerificationError):
        page["take"](secret, headers, BODY + b" ", set())
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        page["take"](new_hmac_secret(), headers, BODY, set())


def test_v1a_is_verified_with_the_public_key(page: dict[str, Any], tmp_path: Path) -> None:
    secret, public = new_ed25519_pair()
    headers = _headers(tmp_path, secret)

    assert page["verify_v1a"](public, headers, BODY)
    assert not page["verify_v1a"](public, headers, BODY + b" ")
    assert not page["verify_v1a"](new_ed25519_pair()[1], headers, BODY)
    assert not page["verify_v1a"](public, _headers(tmp_path, secret, timedelta(hours=1)), BODY)
