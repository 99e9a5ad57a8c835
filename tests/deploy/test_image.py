"""The image is built from locked packages, holds what it needs and runs as nobody."""

import re
import tomllib

import pytest

from tests.support import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def _pins(lock: str) -> dict[str, set[str]]:
    """Return the locked versions by package; platforms may differ in theirs."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def _direct_dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [re.split(r"[<>=!~;\[ ]", requirement)[0].lower() for requirement in project["dependencies"]]


@pytest.mark.parametrize("lock", ["requirements-runtime.lock", "deploy/image/build.lock"])
def test_the_image_gets_the_versions_that_the_tests_ran_with(lock: str) -> None:
    tested = _pins("requirements.lock")

    assert {name: pins for name, pins in _pins(lock).items() if tested.get(name, pins) != pins} == {}


def test_the_runtime_lock_holds_every_dependency() -> None:
    assert sorted(set(_direct_dependencies()) - _pins("requirements-runtime.lock").keys()) == []


@pytest.mark.parametrize("lock", ["requirements-runtime.lock", "deploy/image/build.lock"])
def test_every_locked_package_has_a_hash(lock: str) -> None:
    entries = re.split(r"^(?=[a-z0-9._-]+==)", (ROOT / lock).read_text("utf-8"), flags=re.MULTILINE)[1:]

    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_build_gets_to_see_every_folder_and_file_it_copies() -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = [
        part for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for part in line.split()
    ]

    assert [
        path for path in copied if not any(path == entry or path.startswith(f"{entry}/") for entry in allowed)
    ] == []
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_the_build_sees_nothing_that_is_not_named() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()

    assert next(line for line in lines if not line.startswith("#")) == "*"


def test_the_image_runs_as_a_numbered_user_so_that_kubernetes_can_tell_it_is_not_root() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_every_stage_starts_from_the_same_base() -> None:
    assert len(set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))) == 1
