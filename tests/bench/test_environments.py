"""Environments of the peers: when one is made anew."""

from pathlib import Path

import pytest

from bench.peers import environments
from bench.peers.environments import Environment


def test_an_environment_is_made_anew_for_another_interpreter_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def run(command: tuple[str, ...]) -> None:
        if "venv" in command:
            made.append(command[0])
            Path(command[-1]).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "_run", run)
    peer = Environment("peer", "python3.11", ("peer==1",))
    for python in ("/one/python3.11", "/one/python3.11", "/other/python3.11"):
        monkeypatch.setattr(environments, "interpreter", lambda _name, python=python: python)
        peer.install()

    assert made == ["/one/python3.11", "/other/python3.11"]
