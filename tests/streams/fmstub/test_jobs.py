"""Batch jobs of the stub, by boto3 unchanged, over an S3 server."""

import json
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from tests.awslab.moto import Moto, session
from tests.stub import Stub
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.process

ROLE = "arn:aws:iam::123456789012:role/batch"
OVER = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}


@pytest.fixture(scope="module")
def s3(moto: Moto) -> Iterator[Any]:
    """Give a client with the bucket of the jobs, the same to all tests here."""
    moto.bucket("jobs")
    yield moto.client("s3")
    moto.reset()


@pytest.fixture(scope="module")
def with_s3(s3: Any) -> Iterator[Stub]:
    with ChildProcess("streams", "fm-stub", "--port", "0", "--s3-endpoint", s3.meta.endpoint_url) as process:
        yield Stub(process.wait_for(r"^listening on (http://\S+)$")[1])


def control_of(stub: Stub) -> Any:
    return session().client("bedrock", endpoint_url=stub.url)


@pytest.fixture
def bedrock(with_s3: Stub) -> Iterator[Any]:
    with_s3.set_knobs(batch_min_records=2)
    client = control_of(with_s3)
    yield client
    client.close()


def put(s3: Any, key: str, count: int) -> None:
    def line(n: int) -> dict[str, Any]:
        text = "" if n == 1 else f"Invoice {n} was not paid."
        content = [{"text": text}] if text else []
        body = {"messages": [{"role": "user" if text else "robot", "content": content}]}
        return {"recordId": f"R{n:010d}", "modelInput": body}

    s3.put_object(Bucket="jobs", Key=key, Body="\n".join(json.dumps(line(n)) for n in range(count)).encode())


def begin(bedrock: Any, key: str, **more: Any) -> str:
    arn: str = bedrock.create_model_invocation_job(
        jobName="a-job",
        roleArn=ROLE,
        modelId="anthropic.claude-v1:0",
        modelInvocationType="Converse",
        inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": f"s3://jobs/{key}"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://jobs/out/"}},
        **more,
    )["jobArn"]
    return arn


def ended(bedrock: Any, arn: str) -> dict[str, Any]:
    def job() -> dict[str, Any] | None:
        found: dict[str, Any] = bedrock.get_model_invocation_job(jobIdentifier=arn)
        return found if found["status"] in OVER else None

    found = eventually(job, 20)
    assert found is not None
    return found


def test_a_job_answers_each_record_or_says_why_not(bedrock: Any, s3: Any) -> None:
    put(s3, "in/a.jsonl", 20)
    arn = begin(bedrock, "in/a.jsonl")
    job = ended(bedrock, arn)
    base = f"out/{arn.rpartition('/')[2]}"
    raw = s3.get_object(Bucket="jobs", Key=f"{base}/a.jsonl.out")["Body"].read().decode()
    lines = {line["recordId"]: line for line in map(json.loads, raw.splitlines())}
    manifest = json.loads(s3.get_object(Bucket="jobs", Key=f"{base}/manifest.json.out")["Body"].read())

    assert (job["status"], job["totalRecordCount"], job["errorRecordCount"]) == ("Completed", 20, 1)
    assert sorted(lines) == [f"R{n:010d}" for n in range(20)]
    assert lines["R0000000001"]["error"]["errorCode"] == 400
    assert "was not paid" in lines["R0000000003"]["modelOutput"]["output"]["message"]["content"][0]["text"]
    assert (manifest["successRecordCount"], manifest["errorRecordCount"]) == (19, 1)
    assert [json.loads(line)["recordId"] for line in raw.splitlines()] != sorted(lines)


def test_one_token_is_one_job(bedrock: Any, s3: Any) -> None:
    put(s3, "in/b.jsonl", 2)
    first, again = (begin(bedrock, "in/b.jsonl", clientRequestToken="token1") for _ in range(2))

    assert first == again
    with pytest.raises(botocore.exceptions.ClientError, match="other parameters"):
        begin(bedrock, "in/other.jsonl", clientRequestToken="token1")


def test_too_few_records_and_an_input_that_is_not_there_fail_the_job(bedrock: Any, s3: Any) -> None:
    put(s3, "in/c.jsonl", 1)
    few, gone = (ended(bedrock, begin(bedrock, key)) for key in ("in/c.jsonl", "in/nowhere.jsonl"))

    assert (few["status"], "fewer than the minimum" in few["message"]) == ("Failed", True)
    assert (gone["status"], "cannot be used" in gone["message"]) == ("Failed", True)


def test_a_job_can_come_back_in_part_or_be_stopped(bedrock: Any, s3: Any, with_s3: Stub) -> None:
    put(s3, "in/d.jsonl", 10)
    with_s3.set_knobs(batch_min_records=2, batch_share=0.5)
    partly = ended(bedrock, begin(bedrock, "in/d.jsonl"))
    with_s3.set_knobs(batch_min_records=2, batch_state_s=0.3)
    arn = begin(bedrock, "in/d.jsonl")
    bedrock.stop_model_invocation_job(jobIdentifier=arn)
    stopped = ended(bedrock, arn)

    assert (partly["status"], partly["processedRecordCount"]) == ("PartiallyCompleted", 5)
    assert (stopped["status"], stopped["processedRecordCount"]) == ("Stopped", 0)
    statuses = {job["status"] for job in bedrock.list_model_invocation_jobs()["invocationJobSummaries"]}
    assert {"PartiallyCompleted", "Stopped"} <= statuses


def test_a_stub_without_s3_says_so(stub: Stub) -> None:
    client = control_of(stub)
    with pytest.raises(botocore.exceptions.ClientError, match="--s3-endpoint"):
        begin(client, "in/a.jsonl")
    client.close()
