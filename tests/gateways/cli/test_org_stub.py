"""The options of `penstock org-stub`, up to its start."""

from pathlib import Path

import pytest

from gateways.cli.main import run


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--latency", "nan", "expected a finite number"),
        ("--callout-wait-scale", "-1", "not in the range"),
        ("--callout-url", "gateway:8080", "expected http://HOST:PORT"),
        ("--consumer-secret", "pasted", "must be a reference"),
        ("--consumer-secret", "env:PENSTOCK_TEST_NO_SUCH", "is not set or empty"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["org-stub", option, value]) == 2

    error = capsys.readouterr().err
    assert option in error
    assert said in error


@pytest.mark.parametrize("option", ["--certificate", "--consumer-secret"])
def test_a_file_that_is_no_text_is_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key.der"
    file.write_bytes(b"\x30\x82\xff")
    value = str(file) if option == "--certificate" else f"file:{file}"

    assert run(["org-stub", option, value]) == 2
    assert f"Invalid value for {option}: is no text" in capsys.readouterr().err


def test_a_host_that_no_resolver_takes_is_a_plain_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["org-stub", "--host", "a..b"]) == 1
    assert capsys.readouterr().err.startswith("Error: org-stub cannot start: ")
