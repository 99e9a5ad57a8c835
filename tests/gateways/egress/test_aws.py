"""What an error code of AWS means: what is about a key, a permission or a quota must not empty a topic of its items."""

import asyncio
import threading

import pytest

from contracts.settings.egress import AwsDoor
from gateways.egress.aws import Aws, code_verdict
from gateways.egress.base import Later, Refused
from tests.awslab.moto import session
from tests.support import eventually_async, no_threads

# SNS, SQS by its model, and SQS as it answers: boto3 puts the code of the former protocol in place of the model's.
THROTTLED_KEYS = ["KMSThrottling", "KmsThrottled", "KMS.ThrottlingException"]
UNUSABLE_KEYS = [
    "KMSDisabled", "KMSInvalidState", "KMSNotFound", "KMSOptInRequired", "KMSAccessDenied",
    "KmsDisabled", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired", "KmsAccessDenied", "KmsInvalidKeyUsage",
    "KMS.DisabledException", "KMS.InvalidStateException", "KMS.NotFoundException", "KMS.OptInRequired",
    "KMS.AccessDeniedException", "KMS.InvalidKeyUsageException",
]  # fmt: skip


@pytest.mark.parametrize("code", THROTTLED_KEYS)
@pytest.mark.parametrize("status", [0, 400])
def test_a_key_that_is_asked_too_often_is_a_throttle(code: str, status: int) -> None:
    assert code_verdict(code, "no", status) == Later("throttled", f"{code}: no")


@pytest.mark.parametrize("code", UNUSABLE_KEYS)
@pytest.mark.parametrize("status", [0, 400, 403])
def test_a_key_that_cannot_be_used_is_for_the_operator(code: str, status: int) -> None:
    assert code_verdict(code, "no", status) == Later("access_denied", f"{code}: no", scope="operator")


@pytest.mark.parametrize("code", ["NotAuthorizedForSourceException", "NotAuthorizedForDetailTypeException"])
def test_a_bus_that_does_not_take_our_events_is_for_the_operator(code: str) -> None:
    assert code_verdict(code, "no", 400) == Later("access_denied", f"{code}: no", scope="operator")


@pytest.mark.parametrize("code", ["InvalidMessageContents", "MalformedDetail", "InvalidParameterValue"])
def test_what_is_about_the_item_is_refused(code: str) -> None:
    assert code_verdict(code, "no", 400) == Refused("invalid_request", f"{code}: no")


async def test_a_door_at_the_limit_of_threads_makes_each_call_once_with_those_it_has() -> None:
    settings = AwsDoor.model_validate({"region": "us-east-1", "max_in_flight": 4})
    aws, begun, gate = Aws("queue", "sqs", settings, session()), list[int](), threading.Event()

    def call(number: int) -> int:
        begun.append(number)
        gate.wait(10)
        return number

    await aws.start()
    with no_threads():
        calls = [asyncio.ensure_future(aws.run(call, number)) for number in range(3)]
        await eventually_async(lambda: begun)
    gate.set()

    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert begun == [0, 1, 2]

    await aws.aclose()
