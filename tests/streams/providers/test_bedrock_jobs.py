"""The control plane of Bedrock's batch API: a job that exists is never taken for one that was refused."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from contracts.errors import AccessDenied, InvalidRequest, ProviderUnavailable, Throttled
from contracts.settings import BedrockProvider
from streams.providers.bedrock_jobs import BedrockJobs, InputGone, JobUnknown

ARN = "arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/abcdefghijkl"
ROLE = "arn:aws:iam::123456789012:role/batch"
API = {"role_arn": ROLE, "input": "s3://jobs/in", "output": "s3://jobs/out"}
CREATE, LIST = "create_model_invocation_job", "list_model_invocation_jobs"


def summary(name: str, arn: str = ARN) -> dict[str, Any]:
    return {
        "jobArn": arn,
        "jobName": name,
        "modelId": "m",
        "roleArn": ROLE,
        "submitTime": datetime.now(UTC),
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://jobs/in/h/0.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://jobs/out/h/"}},
    }


class Plane:
    """The jobs, and what the service answers them."""

    def __init__(self) -> None:
        client = boto3.client(
            "bedrock", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        self.stub = Stubber(client)
        provider = BedrockProvider.model_validate({"kind": "bedrock", "region": "eu-central-1", "batch_api": API})
        assert provider.batch_api is not None
        self.jobs = BedrockJobs(provider, provider.batch_api)
        self.jobs._clients["bedrock"] = client

    def refuses(self, operation: str, code: str, status: int = 400) -> None:
        """Have the next call refused."""
        self.stub.add_client_error(operation, code, "no", http_status_code=status)

    def create(self, *, may_exist: bool = False) -> str:
        """Create the job of token `tx1`."""
        uris = "s3://jobs/in/h/1.jsonl", "s3://jobs/out/h/"
        return self.jobs.create("anthropic.claude-v1:0", "tx1", *uris, may_exist=may_exist)


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    with made.stub:
        yield made
        made.stub.assert_no_pending_responses()


def test_a_job_whose_token_the_service_has_forgotten_is_found_by_its_name(plane: Plane) -> None:
    """Killed before its id was noted, and taken up days later: refused, it would run beside the workers' answers."""
    plane.refuses(CREATE, "ConflictException")
    first = {"invocationJobSummaries": [summary("penstock-tx10", "arn:aws:bedrock:other")], "nextToken": "more"}
    plane.stub.add_response(LIST, first, {"nameContains": "penstock-tx1"})
    asked = {"nameContains": "penstock-tx1", "nextToken": "more"}
    plane.stub.add_response(LIST, {"invocationJobSummaries": [summary("penstock-tx1")]}, asked)

    assert plane.create() == ARN


@pytest.mark.parametrize("code", ["ValidationException", "ResourceNotFoundException"])
def test_a_job_that_may_exist_and_cannot_be_looked_for_is_not_taken_for_a_refused_one(plane: Plane, code: str) -> None:
    plane.refuses(CREATE, "ConflictException")
    plane.refuses(LIST, code)

    with pytest.raises(ProviderUnavailable, match="penstock-tx1 may be there"):
        plane.create()


def test_a_missing_right_to_look_for_a_job_is_told_as_one_and_its_records_are_held_back(plane: Plane) -> None:
    """Whoever upgrades has not given it to the role yet; neither InvalidRequest nor ModelNotFound frees the records."""
    plane.refuses(CREATE, "ConflictException")
    plane.refuses(LIST, "AccessDeniedException", 403)

    with pytest.raises(AccessDenied, match="bedrock:ListModelInvocationJobs"):
        plane.create()


def test_a_conflict_without_a_job_passes(plane: Plane) -> None:
    plane.refuses(CREATE, "ConflictException")
    plane.stub.add_response(LIST, {"invocationJobSummaries": []}, {"nameContains": "penstock-tx1"})

    with pytest.raises(ProviderUnavailable, match="in conflict"):
        plane.create()


def test_a_job_that_the_service_will_not_have_is_refused(plane: Plane) -> None:
    plane.refuses(CREATE, "ValidationException")

    with pytest.raises(InvalidRequest):
        plane.create()


@pytest.mark.parametrize("code", ["ValidationException", "ResourceNotFoundException"])
def test_a_job_that_an_earlier_process_has_begun_with_other_settings_is_found_by_its_name(
    plane: Plane, code: str
) -> None:
    """The service refuses its token then, as it refuses a job that it will not have."""
    plane.refuses(CREATE, code)
    found = {"invocationJobSummaries": [summary("penstock-tx1")]}
    plane.stub.add_response(LIST, found, {"nameContains": "penstock-tx1"})

    assert plane.create(may_exist=True) == ARN


def test_a_job_that_may_have_been_begun_and_was_not_is_refused(plane: Plane) -> None:
    plane.refuses(CREATE, "ValidationException")
    plane.stub.add_response(LIST, {"invocationJobSummaries": []}, {"nameContains": "penstock-tx1"})

    with pytest.raises(InvalidRequest):
        plane.create(may_exist=True)


@pytest.mark.parametrize(("code", "is_gone"), [("NoSuchKey", True), ("NoSuchBucket", False), ("SlowDown", False)])
def test_records_are_gone_only_where_their_bucket_is_there(code: str, is_gone: bool) -> None:
    """A bucket that is not there is a mistake of the configuration most likely, and nothing is given up for it."""
    plane = Plane()
    client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
    plane.jobs._clients["s3"] = client
    with Stubber(client) as stub:
        stub.add_client_error("get_object", code, "no")
        with pytest.raises(ProviderUnavailable) as raised:
            list(plane.jobs.record_ids("s3://jobs/in/h/1.jsonl"))

    assert isinstance(raised.value, InputGone) == is_gone


def test_credentials_that_are_renewed_and_expired_deny_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `aws configure export-credentials` puts them into the environment, hours ago."""
    for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "old")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    plane = Plane()
    plane.jobs._clients.clear()
    asking: tuple[Callable[[], object], ...] = (
        plane.create,
        lambda: plane.jobs.status(ARN),
        lambda: plane.jobs.has("s3://jobs/in/h/1.jsonl"),
        lambda: list(plane.jobs.record_ids("s3://jobs/in/h/1.jsonl")),
    )
    for ask in asking:
        with pytest.raises(AccessDenied, match="expired"):
            ask()
    plane.jobs.close()


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "ValidationException"])
def test_a_job_that_the_service_does_not_know_is_told_apart_from_one_that_it_will_not_show_now(
    plane: Plane, code: str
) -> None:
    plane.refuses("get_model_invocation_job", code, 404)
    plane.refuses("get_model_invocation_job", "AccessDeniedException", 403)
    plane.refuses("get_model_invocation_job", "ThrottlingException", 429)

    for kind in (JobUnknown, AccessDenied, Throttled):
        with pytest.raises(kind):
            plane.jobs.status(ARN)
