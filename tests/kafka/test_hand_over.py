"""Events for the provider's batch API on real Kafka: handed over once, answered once, whoever is killed."""

import contextlib
import json
import re
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.awslab.moto import Moto
from tests.kafka.batch_lab import BatchLab, events_of, read_lines, write_lines
from tests.kafka.worker_lab import PARTITIONS, STATIC, Outcomes, WorkerLab, cut_log, recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import JvmBroker
from tests.stub import Stub
from tests.support import ChildProcess, ask, eventually, free_port

pytestmark = pytest.mark.timeout(180)
LINES = 120


class Site:
    """A lab whose model is Bedrock with a batch API."""

    def __init__(self, kafka: KafkaLab, folder: Path, stub: str, s3: Any, **batch_api: Any) -> None:
        api = {
            "role_arn": "arn:aws:iam::123456789012:role/batch",
            "input": "s3://jobs/in",
            "output": "s3://jobs/out",
            "endpoint_url": stub,
            "s3_endpoint_url": s3.meta.endpoint_url,
            "min_records": 10,
            "max_wait_s": 1,
            "poll_s": 0.2,
            "min_time_left_s": 60,
            **batch_api,
        }
        provider = {"kind": "bedrock", "region": "eu-central-1", "endpoint_url": stub, "batch_api": api}
        price = {"input_usd": 1000, "output_usd": 1000}
        more = {"models": {"m": {"provider": "p", "model": "anthropic.claude-v1:0", "price": price}}}
        self._stub = Stub(stub)
        lab = WorkerLab(kafka, folder, provider=provider, route={"deadline_s": 86400}, more=more)
        self.batch = BatchLab(lab, folder)
        kafka.create_named(lab.topics.handovers, partitions=PARTITIONS)

    def hand_over(self, program: str = "streams", **more: str) -> ChildProcess:
        """Return the process, not started yet."""
        env = {"PENSTOCK_HAND_OVER_PROCESS__HEALTH_PORT": "0", **more}
        return ChildProcess(program, "hand-over", "--config", str(self.batch.lab.config), env=env)

    def knobs(self, **knobs: Any) -> None:
        """Set the model server's knobs."""
        self._stub.set_knobs(**{"batch_min_records": 10, **knobs})

    def stats(self) -> dict[str, Any]:
        """Return what the model server has served."""
        return self._stub.stats()


@pytest.fixture
def s3(s3: Any, moto: Moto) -> Any:
    """Give it with the bucket of the jobs."""
    moto.bucket("jobs")
    return s3


@pytest.fixture
def stub(s3: Any) -> Iterator[str]:
    with ChildProcess("streams", "fm-stub", "--port", "0", "--s3-endpoint", s3.meta.endpoint_url) as process:
        yield process.wait_for(r"^listening on (http://\S+)$")[1]


def tickets(folder: Path, count: int = LINES) -> Path:
    return write_lines(
        folder / "in.jsonl", [{"recordId": f"r{n}", "text": f"Ticket {n} is open."} for n in range(count)]
    )


def submit(site: Site, source: Path) -> ChildProcess:
    return site.batch.start("submit", str(source), "--job", "big", "--hand-over", "--wait", "-o", "out.jsonl")


def is_empty(url: str) -> bool:
    page = ask(f"{url}/metrics").decode()
    samples = ("waiting_records", "open", "oldest_age_seconds")
    return all(f"\npenstock_handover_{name} 0.0" in page for name in samples)


def test_a_job_is_answered_by_one_batch_and_its_refused_lines_by_the_workers(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(fail_first={"Ticket 7 ": 1, "Ticket 8 ": 1})
    with submit(site, tickets(tmp_path)) as waiting, site.hand_over() as handing, site.batch.lab.worker():
        assert waiting.wait(90) == 0, waiting.output + handing.output
        handing.wait_for("handover.finished")
        url = handing.wait_for(r"^health on (http://\S+)$")[1]
        # It looks at the end of its topic now and then, and counts what became of all in one go.
        eventually(lambda: is_empty(url), 30)
        page = ask(f"{url}/metrics").decode()
    output = read_lines(tmp_path / "out.jsonl")
    manifest = json.loads((tmp_path / "out.manifest.json").read_text("utf-8"))
    stats = site.stats()

    assert f'penstock_handover_records_total{{outcome="succeeded"}} {LINES - 2}.0' in page
    assert 'penstock_handover_records_total{outcome="refused"} 2.0' in page
    assert "penstock_handover_last_finished_timestamp_seconds 0.0" not in page
    assert [line["recordId"] for line in output] == [f"r{n}" for n in range(LINES)]
    assert {line["status"] for line in output} == {"succeeded"}
    assert Counter(line["attempts"] for line in output) == {1: LINES - 2, 2: 2}
    assert manifest["repeated_outcomes"] == 0
    assert stats["by_operation"] == {"batch-job": 1, "batch": LINES, "converse": 2}
    # 1,000 dollars a million tokens, and half of that in a batch.
    for line in output:
        if line["attempts"] == 1:
            tokens = line["usage"]["input_tokens"] + line["usage"]["output_tokens"]
            assert line["cost_usd"] == pytest.approx(tokens / 1000 / 2)


def test_killed_before_and_after_its_answers_it_pays_and_answers_once(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(batch_state_s=0.5)
    with Outcomes(kafka, site.batch.lab.topics.results) as results, submit(site, tickets(tmp_path)) as waiting:
        with site.hand_over() as first:
            eventually(lambda: site.stats()["by_operation"].get("batch-job"), within_s=60)
            first.signal(signal.SIGKILL)
        with site.hand_over() as second:
            # Somewhere between the first answer and the note that it is finished.
            eventually(lambda: results.read(0.01).by_id, within_s=60)
            second.signal(signal.SIGKILL)
        with site.hand_over(), site.batch.lab.worker():
            assert waiting.wait(90) == 0, waiting.output
        tally = results.read(0.5)

    assert len(read_lines(tmp_path / "out.jsonl")) == LINES
    assert tally.duplicates == []
    assert site.stats()["by_operation"] == {"batch-job": 1, "batch": LINES}


@pytest.mark.long
def test_it_waits_for_kafka_at_its_start_and_begins_anew_after_an_outage(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("the broker is not ours to restart")
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(batch_state_s=2)
    # Silent: what refuses connections comes below, and where no broker is, in the tests of the programs.
    kafka.broker.pause()
    with site.hand_over("tests.kafka.hasty_hand_over") as handing:
        handing.wait_for("kafka.waiting", 30)
        kafka.broker.resume()
        handing.wait_for("handover.serving", 60)
        with submit(site, tickets(tmp_path)) as waiting, site.batch.lab.worker():
            handing.wait_for("handover.running", 60)
            kafka.broker.stop()
            eventually(lambda: site.stats()["by_operation"].get("batch"), within_s=30)
            # The answers are there and cannot be written; whether they were is not known, and it looks.
            eventually(lambda: handing.output.count("kafka.waiting") > 1, within_s=60)
            kafka.broker.start()
            assert waiting.wait(90) == 0, waiting.output + handing.output
        handing.signal(signal.SIGTERM)
        assert handing.wait(20) == 0, handing.output
    manifest = json.loads((tmp_path / "out.manifest.json").read_text("utf-8"))

    assert (manifest["counts"]["succeeded"], manifest["repeated_outcomes"]) == (LINES, 0)
    assert site.stats()["by_operation"] == {"batch-job": 1, "batch": LINES}


def limit_files(process: ChildProcess, size_bytes: int) -> None:
    """Let the process write no longer file, its log included: writes beyond that fail, as on a full disk."""
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def test_it_rests_while_its_disk_is_full_before_its_jobs_and_before_its_answers(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(batch_state_s=1)
    long = " It is open." * 200
    source = write_lines(tmp_path / "in.jsonl", [{"recordId": f"r{n}", "text": f"No {n}.{long}"} for n in range(LINES)])
    work = tmp_path / "work"
    env = {"PENSTOCK_BATCH_JOBS__RETRY_PAUSE_S": "0.2", "PENSTOCK_BATCH_JOBS__WORK_DIR": str(work)}
    with site.hand_over(**env) as handing, site.batch.lab.worker():
        url = handing.wait_for(r"^health on (http://\S+)$")[1]
        handing.wait_for("handover.serving")
        limit_files(handing, 2**16)
        with submit(site, source) as waiting:
            eventually(lambda: handing.output.count("handover.rests") > 1, 30)
            assert site.stats()["by_operation"] == {}
            assert len(list(work.iterdir())) <= 1
            limit_files(handing, resource.RLIM_INFINITY)
            handing.wait_for("handover.running", 30)
            limit_files(handing, 2**16)
            resting = handing.output.count("handover.rests")
            eventually(lambda: handing.output.count("handover.rests") > resting, 30)
            limit_files(handing, resource.RLIM_INFINITY)
            assert waiting.wait(90) == 0, waiting.output + handing.output
        page = ask(f"{url}/metrics").decode()
        handing.signal(signal.SIGTERM)
        assert handing.wait(20) == 0, handing.output
    manifest = json.loads((tmp_path / "out.manifest.json").read_text("utf-8"))

    assert 'penstock_handover_rests_total{reason="disk"}' in page
    assert "Exception ignored" not in handing.output
    assert list(work.iterdir()) == []
    assert (manifest["counts"]["succeeded"], manifest["repeated_outcomes"]) == (LINES, 0)
    assert site.stats()["by_operation"] == {"batch-job": 1, "batch": LINES}


def named(folder: Path, job: str, count: int) -> Path:
    return write_lines(
        folder / f"{job}.jsonl", [{"recordId": f"{job}-{n}", "text": f"{job} {n}."} for n in range(count)]
    )


def succeeded(site: Site, folder: Path, job: str, count: int) -> int:
    """Submit a job and wait; return how many of its lines were answered, each with an answer of its own."""
    source = named(folder, job, count)
    with site.batch.start("submit", str(source), "--job", job, "--hand-over", "--wait", "-o", f"{job}-out") as waiting:
        assert waiting.wait(90) == 0, waiting.output
    lines = read_lines(folder / f"{job}-out")
    return sum(f"{job} {n}." in json.dumps(line.get("output")) for n, line in enumerate(lines))


@pytest.mark.long
def test_a_topic_that_is_made_anew_between_two_runs_hands_over_all_of_the_new_one(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs()
    with site.batch.lab.worker():
        with site.hand_over() as first:
            assert succeeded(site, tmp_path, "former", LINES) == LINES
            first.signal(signal.SIGTERM)
            assert first.wait(20) == 0, first.output
        recreate(kafka, site.batch.lab.topics.handovers)
        # Longer than the former one: what lies below its offsets would be passed over.
        with site.hand_over():
            assert succeeded(site, tmp_path, "new", 2 * LINES) == 2 * LINES
        # And not a second time.
        with site.hand_over():
            assert succeeded(site, tmp_path, "last", 20) == 20

    assert site.stats()["by_operation"]["batch"] == 3 * LINES + 20


@pytest.mark.long
def test_a_topic_that_is_made_anew_behind_its_back_hands_over_all_of_the_new_one(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs()
    with site.batch.lab.worker(), site.hand_over() as handing:
        assert succeeded(site, tmp_path, "former", LINES) == LINES
        handing.signal(signal.SIGSTOP)
        recreate(kafka, site.batch.lab.topics.handovers)
        site.batch("submit", str(named(tmp_path, "new", 2 * LINES)), "--job", "new", "--hand-over")
        handing.signal(signal.SIGCONT)
        assert succeeded(site, tmp_path, "new", 2 * LINES) == 2 * LINES

    assert site.stats()["by_operation"]["batch"] == 3 * LINES


@pytest.mark.long
def test_answers_to_a_topic_that_is_gone_are_not_given_to_the_events_of_the_new_one(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(batch_state_s=1)
    with site.hand_over() as first:
        site.batch("submit", str(named(tmp_path, "former", LINES)), "--job", "former", "--hand-over")
        first.wait_for("handover.running", 60)
        first.signal(signal.SIGKILL)
    recreate(kafka, site.batch.lab.topics.handovers)
    with site.batch.lab.worker(), site.hand_over() as second:
        assert succeeded(site, tmp_path, "new", LINES) == LINES
        second.wait_for("handover.gone")


@pytest.mark.parametrize("is_busy", [False, True])
def test_it_ends_soon_though_kafka_is_silent(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any, is_busy: bool
) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("the broker is not ours to pause")
    site = Site(kafka, tmp_path, stub, s3, max_wait_s=1 if is_busy else 60)
    site.knobs(batch_state_s=0.2)
    with site.hand_over() as handing:
        handing.wait_for("handover.serving", 60)
        site.batch("submit", str(tickets(tmp_path)), "--job", "big", "--hand-over")
        if is_busy:
            handing.wait_for("handover.running", 60)
        kafka.broker.pause()
        try:
            if is_busy:
                # The answers are there, and cannot be written.
                eventually(lambda: site.stats()["by_operation"].get("batch"), within_s=30)
            handing.signal(signal.SIGTERM)
            assert handing.wait(4) == 0, handing.output
        finally:
            kafka.broker.resume()


@pytest.mark.long
def test_what_a_batch_does_not_answer_the_workers_do(kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any) -> None:
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(batch_share=0.5)
    with submit(site, tickets(tmp_path)) as waiting, site.hand_over() as handing, site.batch.lab.worker():
        assert waiting.wait(90) == 0, waiting.output + handing.output
        # A service that refuses the job, and then one record too few for any.
        site.knobs(batch_min_records=1000)
        for job, count in (("refused", 20), ("few", 1)):
            source = write_lines(tmp_path / f"{job}.jsonl", [{"text": f"Ticket {n}"} for n in range(count)])
            with site.batch.start("submit", str(source), "--job", job, "--hand-over", "--wait") as small:
                assert small.wait(60) == 0, small.output + handing.output
    manifests = [json.loads(path.read_text("utf-8")) for path in tmp_path.glob("*.manifest.json")]
    calls = site.stats()["by_operation"]

    assert sorted(manifest["counts"]["succeeded"] for manifest in manifests) == [1, 20, LINES]
    assert [manifest["repeated_outcomes"] for manifest in manifests] == [0, 0, 0]
    assert (calls["batch"], calls["converse"], calls["batch-job"]) == (LINES / 2, LINES / 2 + 21, 2)


@pytest.mark.long
def test_a_bulk_backlog_spills_into_a_batch_and_each_event_is_paid_and_answered_once(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    site = Site(kafka, tmp_path, stub, s3, spill_behind=20)
    site.knobs(latency_s=0.1, batch_state_s=0.5)
    lab, count = site.batch.lab, 300
    source = tickets(tmp_path, count)
    # Lines without a key are free of order, and the bulk lane is where a backlog may go by itself.
    site.batch("submit", str(source), "--job", "bulk")

    with Outcomes(kafka, lab.topics.results) as results:
        with lab.worker(**STATIC) as first:
            eventually(lambda: first.output.count("event.parked") > 50, within_s=60)
            first.signal(signal.SIGKILL)
        with site.hand_over(), lab.worker(**STATIC):
            tally = results.wait_for(count, within_s=90)
    calls = site.stats()["by_operation"]
    paid = site.stats()["billed"]
    parked = events_of(kafka, lab.topics.handovers)

    assert tally.duplicates == []
    assert len(tally.by_id) == count
    assert set(tally.kinds) == {"penstock.result.v1"}
    assert set(parked.values()) == {1}
    # The last of each partition stay, the others go.
    assert len(parked) >= count - 4 * 20 - 64
    assert calls["batch"] == len(parked)
    # What was in flight at the kill may be paid twice, as without a hand-over.
    assert count <= paid <= count + 32


@pytest.mark.long
@pytest.mark.parametrize("is_running", [False, True])
def test_a_topic_that_has_lost_its_end_is_not_handed_over_again(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any, *, is_running: bool
) -> None:
    """A reader behind its end is led to its beginning, and what comes lies at offsets that were handed over."""
    broker = kafka.broker
    if not isinstance(broker, JvmBroker):
        pytest.skip("only the data of a broker of our own can be cut")
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs()
    topic = site.batch.lab.topics.handovers
    with site.batch.lab.worker(), contextlib.ExitStack() as stack:
        handing = stack.enter_context(site.hand_over())
        assert succeeded(site, tmp_path, "first", LINES) == LINES
        ends = site.batch.lab.ends(topic)
        assert succeeded(site, tmp_path, "second", LINES) == LINES
        if not is_running:
            handing.signal(signal.SIGTERM)
            assert handing.wait(20) == 0, handing.output
        broker.kill()
        for number, end in ends.items():
            cut_log(broker.data / f"{topic}-{number}", end)
        broker.start()
        if not is_running:
            handing = stack.enter_context(site.hand_over())
        assert succeeded(site, tmp_path, "third", 40) == 40
        assert handing.output.count("handover.cut") >= PARTITIONS
        # And not when it is taken up again.
        handing.signal(signal.SIGTERM)
        assert handing.wait(20) == 0, handing.output
        stack.enter_context(site.hand_over())
        assert succeeded(site, tmp_path, "fourth", 40) == 40

    assert site.stats()["by_operation"]["batch"] == 2 * LINES + 80


@pytest.mark.long
def test_a_job_outlives_another_model_its_input_and_the_jobs_topic(
    kafka: KafkaLab, tmp_path: Path, stub: str, s3: Any
) -> None:
    """Each was once a way to pay twice, or to wait for ever."""
    site = Site(kafka, tmp_path, stub, s3)
    site.knobs(batch_state_s=5)
    config = site.batch.lab.config
    with Outcomes(kafka, site.batch.lab.topics.results) as results, submit(site, tickets(tmp_path)) as waiting:
        with site.hand_over() as first:
            first.wait_for("handover.running", 60)
            first.signal(signal.SIGKILL)
        document = yaml.safe_load(config.read_text("utf-8"))
        document["models"]["m"] |= {"model": "another.model-v1:0", "price": {"input_usd": 1, "output_usd": 1}}
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        (found,) = s3.list_objects_v2(Bucket="jobs", Prefix="in/")["Contents"]
        with site.hand_over() as second, site.batch.lab.worker():
            second.wait_for("handover.serving", 60)
            recreate(kafka, site.batch.lab.topics.batch_jobs)
            second.signal(signal.SIGSTOP)
            eventually(lambda: site.stats()["by_operation"].get("batch") == LINES, within_s=60)
            s3.delete_object(Bucket="jobs", Key=found["Key"])
            second.signal(signal.SIGCONT)
            second.wait_for("handover.jobs_topic_made_anew", 60)
            second.wait_for("handover.input_gone", 60)
            assert waiting.wait(90) == 0, waiting.output + second.output
            second.wait_for("handover.finished", 30)
        with site.hand_over() as third:
            third.wait_for("handover.serving", 60)
            url = third.wait_for(r"^health on (http://\S+)$")[1]
            eventually(lambda: is_empty(url), 30)
        duplicates = results.read().duplicates
    output = read_lines(tmp_path / "out.jsonl")

    assert duplicates == []
    assert {line["model"] for line in output} == {"anthropic.claude-v1:0"}
    assert min(line["cost_usd"] for line in output) > 0.001
    assert site.stats()["by_operation"] == {"batch-job": 1, "batch": LINES}


def test_a_job_that_its_provider_has_forgotten_is_given_up_by_an_operator_alone(
    kafka: KafkaLab, tmp_path: Path, s3: Any
) -> None:
    served = ("streams", "fm-stub", "--port", str(free_port()), "--s3-endpoint", s3.meta.endpoint_url)
    stub = f"http://127.0.0.1:{served[3]}"
    with ChildProcess(*served) as first:
        first.wait_for(r"^listening on ")
        site = Site(kafka, tmp_path, stub, s3)
        site.knobs(batch_state_s=60)
        waiting, handing = submit(site, tickets(tmp_path)), site.hand_over()
        with waiting, handing:
            eventually(lambda: site.stats()["by_operation"].get("batch-job"), within_s=60)
            handing.wait_for("handover.running")
            first.signal(signal.SIGKILL)
            with ChildProcess(*served) as second, site.batch.lab.worker():
                second.wait_for(r"^listening on ")
                handing.wait_for("job_unknown", 40)
                with site.batch.start("give-up") as listed:
                    assert listed.wait(30) == 0, listed.output
                arn = re.findall(r"^arn:aws:bedrock:\S+$", listed.output, re.MULTILINE)[0]
                with site.batch.start("give-up", arn, "--yes") as asked:
                    assert asked.wait(30) == 0, asked.output
                assert waiting.wait(90) == 0, waiting.output + handing.output
                handing.wait_for("handover.finished")
    output = read_lines(tmp_path / "out.jsonl")

    assert "may be paid for twice" in asked.output
    assert [line["status"] for line in output] == ["succeeded"] * LINES
