"""`penstock batch give-up` and what `penstock why-stuck` says of jobs that their provider does not know."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.batch_jobs import DENIED, GIVEN_UP, UNSEEN, GivenUp, HandOver, HandOverPart, job_record
from contracts.settings import KafkaSettings
from contracts.topics import Topics
from gateways.batch.jobs import Jobs, put_given_up
from gateways.cli import batch, why_stuck, why_stuck_group
from gateways.cli.main import run
from gateways.cli.why_stuck import STUCK
from producers.log_reader import Found
from tests.gateways.cli.settings import write

ARN = "arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/gone"
API = "{role_arn: 'arn:aws:iam::123456789012:role/b', input: 's3://jobs/in', output: 's3://jobs/out'}"
CONFIG = f"""\
version: 1
providers: {{p: {{kind: bedrock, region: eu-central-1, batch_api: {API}}}}}
models: {{m: {{provider: p, model: m-1}}}}
routes:
  - {{name: r, prompt: {{user: "{{{{ text }}}}"}}, model: m, order: none}}
"""


def hand_over(status: str = UNSEEN, **changes: Any) -> HandOver:
    part = HandOverPart(token="t", input_uri="s3://b/in/1", output_uri="s3://b/out", arn=ARN, status=status,
                        message="Bedrock refused it: ResourceNotFoundException")  # fmt: skip
    made = HandOver(id="h1", ranges={"0": (0, 70), "1": (5, 35)}, answer_starts={}, parts={"m": part},
                    gathered_at="2026-11-01T00:00:00Z", state="running")  # fmt: skip
    return HandOver(**{name: getattr(made, name) for name in made.__struct_fields__} | changes)


def known(*payloads: HandOver | GivenUp) -> Jobs:
    made = Jobs()
    records = (job_record(Topics(), payload) for payload in payloads)
    made.note(Found(one.topic, 0, 0, one.key, one.value, {}) for one in records)
    return made


class Log:
    """What the jobs topic says, and what is put on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *payloads: HandOver | GivenUp) -> None:
        self.put: list[tuple[Any, ...]] = []
        monkeypatch.setattr(batch, "read_jobs", lambda _: known(*payloads))
        monkeypatch.setattr(why_stuck, "read_jobs", lambda _: known(*payloads))
        monkeypatch.setattr(batch, "put_given_up", self._put)

    async def _put(self, _settings: object, *what: Any) -> None:
        self.put.append(what)


def give_up(folder: Path, *args: str) -> int:
    return run(["batch", "give-up", *args, "--config", str(write(folder, CONFIG))])


def test_without_an_arn_the_jobs_are_listed_that_their_provider_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(monkeypatch, hand_over())

    assert give_up(tmp_path) == 0
    out = capsys.readouterr().out
    assert ARN in out
    assert "ResourceNotFoundException" in out
    assert log.put == []


def test_a_dry_run_says_what_it_means_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(monkeypatch, hand_over())

    assert give_up(tmp_path, ARN, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "up to 100 records" in out
    assert "may be paid for twice" in out
    assert log.put == []


def test_it_is_noted_beside_what_was_given_up_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch, hand_over(), GivenUp(id="h1", job="arn:earlier"))

    assert give_up(tmp_path, ARN, "--yes") == 0
    ((wish, by),) = log.put
    assert wish == GivenUp(id="h1", job=ARN)
    assert "@" in by


def test_what_is_noted_already_is_not_noted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(monkeypatch, hand_over(), GivenUp(id="h1", job=ARN))

    assert give_up(tmp_path, ARN, "--yes") == 0
    assert "noted before" in capsys.readouterr().out
    assert log.put == []


def test_jobs_that_two_operators_give_up_at_once_are_both_given_up() -> None:
    """Neither has read what the other is about to write."""
    first, second = GivenUp(id="h1", job=ARN), GivenUp(id="h1", job="arn:other/job")

    assert known(hand_over(), first, second).given_up == {ARN: first, "arn:other/job": second}
    assert job_record(Topics(), first).key != job_record(Topics(), second).key


def test_a_job_that_credentials_or_rights_hide_is_not_given_up_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs, most likely, and its answers would be paid for twice."""
    log = Log(monkeypatch, hand_over(DENIED))

    assert give_up(tmp_path, ARN, "--yes") == 1
    assert give_up(tmp_path, ARN, "--dry-run") == 1
    err = capsys.readouterr().err
    assert "credentials or rights of `penstock hand-over`" in err
    assert "--even-if-denied" in err
    assert log.put == []


def test_a_hidden_job_is_given_up_by_a_word_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may come after it was given up without."""
    log = Log(monkeypatch, hand_over(DENIED), GivenUp(id="h1", job=ARN))

    assert give_up(tmp_path, ARN, "--yes", "--even-if-denied") == 0
    ((wish, _),) = log.put
    assert wish == GivenUp(id="h1", job=ARN, even_if_denied=True)


def test_nobody_is_asked_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(monkeypatch, hand_over())

    assert give_up(tmp_path, ARN) == 2
    assert "--yes does it" in capsys.readouterr().err
    assert log.put == []


@pytest.mark.parametrize("state", [hand_over("InProgress"), hand_over(GIVEN_UP), hand_over(state="finished")])
def test_a_job_that_its_provider_knows_cannot_be_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: HandOver
) -> None:
    log = Log(monkeypatch, state)

    assert give_up(tmp_path, ARN, "--yes") == 1
    assert "there is no job" in capsys.readouterr().err
    assert log.put == []


@pytest.mark.parametrize("in_json", [False, True])
def test_why_stuck_names_the_job_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, in_json: bool
) -> None:
    Log(monkeypatch, hand_over())
    monkeypatch.setattr(why_stuck_group, "_LIMIT_S", 0.1)
    monkeypatch.setenv("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    more = ["--json"] if in_json else []

    assert (
        run(["why-stuck", "--config", str(write(tmp_path, CONFIG)), "--worker", "http://127.0.0.1:1", *more]) == STUCK
    )
    out = capsys.readouterr().out
    if in_json:
        assert ARN in json.loads(out)["unseen_jobs"]
    else:
        assert f"STUCK job {ARN}" in out
        assert f"penstock batch give-up {ARN} --dry-run" in out


def test_why_stuck_names_credentials_and_rights_first_where_they_hide_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Log(monkeypatch, hand_over(DENIED))
    monkeypatch.setattr(why_stuck_group, "_LIMIT_S", 0.1)
    monkeypatch.setenv("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")

    assert run(["why-stuck", "--config", str(write(tmp_path, CONFIG)), "--worker", "http://127.0.0.1:1"]) == STUCK
    out = capsys.readouterr().out
    assert f"STUCK job {ARN}" in out
    assert "-> the credentials of `penstock hand-over`, and their right to bedrock:GetModelInvocationJob" in out
    assert "give-up" not in out


async def test_what_is_noted_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by the hand-over: its own test reads the same record."""
    written: list[Any] = []

    class Producer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        async def start(self) -> None: ...

        async def produce(self, made: Any) -> None:
            written.append(made)

        async def aclose(self) -> None: ...

    monkeypatch.setattr("producers.producer.KafkaProducer", Producer)
    settings: Any = type("S", (), {"kafka": KafkaSettings(bootstrap_servers="127.0.0.1:1"), "producer": None})

    await put_given_up(settings, GivenUp(id="h1", job=ARN), "me@here")

    (made,) = written
    assert (made.topic, made.key) == (Topics().batch_jobs, f"h1/{ARN}/given-up".encode())
    jobs = Jobs()
    jobs.note([Found(made.topic, 0, 0, made.key, made.value, {})])
    assert [(wish.id, wish.job, wish.by) for wish in jobs.given_up.values()] == [("h1", ARN, "me@here")]
