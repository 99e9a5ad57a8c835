"""References to secrets."""

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from contracts.settings import SecretRef


def test_a_variable_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = SecretRef("env:PENSTOCK_TEST_SECRET")
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "s3cret")

    assert secret.resolve() == b"s3cret"


def test_the_line_end_of_a_file_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b" s3cret \r\n")

    assert SecretRef(f"file:{tmp_path}/key").resolve() == b" s3cret "


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_or_empty_is_refused(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("PENSTOCK_TEST_SECRET", value)

    with pytest.raises(ConfigError, match="secret env:PENSTOCK_TEST_SECRET is not set or empty"):
        SecretRef("env:PENSTOCK_TEST_SECRET").resolve()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secret file:.*/none cannot be read: No such file or directory"):
        SecretRef(f"file:{tmp_path}/none").resolve()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\n")

    with pytest.raises(ConfigError, match="is not set or empty"):
        SecretRef(f"file:{tmp_path}/key").resolve()


@pytest.mark.parametrize("text", ["s3cret", "env:", "env:1A", "env:s3 cret", "file:", "ENV:s3cret", "env:s3cret\n"])
def test_what_is_no_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="must be a reference, env:NAME or file:PATH") as caught:
        SecretRef(text)

    assert "s3" not in str(caught.value)


def test_its_text_shows_the_reference_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "s3cret")
    secret = SecretRef("env:PENSTOCK_TEST_SECRET")
    secret.resolve()

    assert repr(secret) == "SecretRef('env:PENSTOCK_TEST_SECRET')"
    assert not hasattr(secret, "__dict__")
