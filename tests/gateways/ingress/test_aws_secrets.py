"""Secrets in AWS Secrets Manager: rotation, outages, and what is no secret; moto's server over HTTP."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts import metrics
from contracts.errors import ConfigError
from contracts.settings import ApiKey, SecretRef, SourceSettings
from contracts.settings.secrets_manager import SecretsManagerSettings
from gateways.ingress.aws_secrets import PREVIOUS, AwsSecrets
from gateways.ingress.callers import Callers
from gateways.ingress.keys import resolve_keys
from gateways.ingress.schemes import scheme_of
from gateways.ingress.secrets import Secrets, SecretStore
from tests.awslab.fixtures import unique
from tests.awslab.moto import session
from tests.awslab.server import REGION, AwsLab, failing
from tests.support import FakeClock

pytestmark = pytest.mark.process

OLD, NEW = "an-old-secret-of-enough-bytes", "a-new-secret-of-enough-bytes"


class Lab:
    """One secret of moto's, and our view of it."""

    def __init__(self, aws: AwsLab, content: str = OLD) -> None:
        self.client = aws.client("secretsmanager")
        self.name = unique("penstock/shop")
        self.client.create_secret(Name=self.name, SecretString=content)
        self.clock = FakeClock()
        self.secrets = AwsSecrets(settings(aws), self.clock, session())

    def rotate(self, content: str) -> None:
        """Make another version the current one."""
        self.client.put_secret_value(SecretId=self.name, SecretString=content)

    def values(self, field: str = "") -> list[tuple[str, str]]:
        """Return what counts: (value, suffix)."""
        found = self.secrets.values(SecretRef(f"aws-sm:{self.name}{field}"))
        return [(value.text.decode(), value.suffix) for value in found]


def settings(aws: AwsLab, **changes: Any) -> SecretsManagerSettings:
    return SecretsManagerSettings(region=REGION, endpoint_url=aws.url, **changes)


def fetches(outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("penstock_secret_fetches_total", {"outcome": outcome}) or 0


@pytest.fixture
def lab(aws: AwsLab) -> Lab:
    return Lab(aws)


def test_a_secret_that_was_never_rotated_has_one_value(lab: Lab) -> None:
    assert lab.values() == [(OLD, "")]


def test_after_a_rotation_both_versions_count_once_the_interval_is_over(lab: Lab) -> None:
    lab.values()
    lab.rotate(NEW)
    within = lab.values()
    lab.clock.advance(300)

    assert lab.secrets.is_due
    assert within == [(OLD, "")]
    assert lab.values() == [(NEW, ""), (OLD, PREVIOUS)]
    assert not lab.secrets.is_due


def test_a_look_that_is_asked_for_does_not_wait_for_the_interval(lab: Lab) -> None:
    lab.values()
    lab.rotate(NEW)
    lab.secrets.expire()

    assert lab.values()[0] == (NEW, "")


def test_the_version_before_counts_for_the_overlap_from_the_making_of_the_current_one(lab: Lab) -> None:
    lab.rotate(NEW)

    made_at = lab.client.describe_secret(SecretId=lab.name)["LastChangedDate"]
    current, previous = lab.secrets.values(SecretRef(f"aws-sm:{lab.name}"))
    assert current.not_after is None
    assert previous.not_after is not None
    assert abs(previous.not_after - (made_at + timedelta(days=1))) < timedelta(seconds=5)


def test_an_unchanged_secret_is_asked_for_once_an_interval_whatever_refers_to_it(aws: AwsLab) -> None:
    lab = Lab(aws, json.dumps({"a": OLD, "b": NEW}))
    lab.values("#a"), lab.values("#b"), lab.values("#a")
    first = aws.calls["GetSecretValue"]
    lab.clock.advance(300)
    lab.values("#a"), lab.values("#b")

    # The first time also the version before is looked for.
    assert (first, aws.calls["GetSecretValue"]) == (2, 3)


def test_a_field_of_a_json_secret_is_taken(aws: AwsLab) -> None:
    lab = Lab(aws, json.dumps({"current": NEW, "number": 7}))

    assert lab.values("#current") == [(NEW, "")]


@pytest.mark.parametrize("content", ['{"a": 7}', '{"b": "x"}', "[1]", OLD])
def test_a_field_that_is_not_there_is_a_configuration_error_that_repeats_nothing(aws: AwsLab, content: str) -> None:
    lab = Lab(aws, content)

    with pytest.raises(ConfigError, match="is no JSON object with the text field 'a'") as caught:
        lab.values("#a")
    assert OLD not in str(caught.value)


def test_a_line_end_is_dropped_as_from_a_file(aws: AwsLab) -> None:
    assert Lab(aws, OLD + "\n").values() == [(OLD, "")]


@pytest.mark.parametrize("code", ["AccessDeniedException", "InternalServiceError", "ResourceNotFoundException"])
def test_what_cannot_be_fetched_at_the_start_is_a_configuration_error(aws: AwsLab, lab: Lab, code: str) -> None:
    with (
        aws.fault(failing("GetSecretValue", code, times=9)),
        pytest.raises(ConfigError, match=rf"secret aws-sm:{lab.name} cannot be fetched: {code}"),
    ):
        lab.values()


def test_an_outage_at_a_refresh_keeps_the_old_value_and_says_so(
    aws: AwsLab, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.values()
    lab.rotate(NEW)
    lab.clock.advance(300)
    before = fetches("failed")
    with aws.fault(failing("GetSecretValue", "AccessDeniedException", times=9)):
        during = lab.values()

    assert during == [(OLD, "")]
    assert fetches("failed") == before + 1
    assert "secret.not_refreshed" in "".join(capsys.readouterr())
    lab.clock.advance(300)
    assert lab.values()[0] == (NEW, "")


def test_a_service_that_does_not_answer_is_given_up_in_time(aws: AwsLab) -> None:
    lab = Lab(aws)
    nowhere = SecretsManagerSettings(region=REGION, endpoint_url="http://127.0.0.1:9", timeout_s=0.2)
    lab.secrets = AwsSecrets(nowhere, session=session())

    with pytest.raises(ConfigError, match="cannot be fetched"):
        lab.values()


def test_what_nobody_refers_to_is_forgotten(lab: Lab) -> None:
    lab.values()
    lab.secrets.keep([f"aws-sm:{lab.name}#a"])
    lab.clock.advance(1000)
    is_due_while_wanted = lab.secrets.is_due
    lab.secrets.keep(["file:/x"])

    assert is_due_while_wanted
    assert not lab.secrets.is_due


def _source(lab: Lab, **more: Any) -> SourceSettings:
    secret = {"id": "k", "value": f"aws-sm:{lab.name}"} | more
    return SourceSettings.model_validate({"scheme": "github", "type": "t", "secrets": [secret]})


def test_a_source_has_both_versions_as_keys_and_the_one_before_ends(aws: AwsLab, lab: Lab) -> None:
    lab.rotate(NEW)
    source = _source(lab)

    keys = resolve_keys("shop", source, scheme_of(source), SecretStore(settings(aws)).reading())

    now = datetime.now(UTC)
    assert [(key.id, key.secret.decode()) for key in keys] == [("k", NEW), ("k:previous", OLD)]
    assert [key.is_valid_at(now + timedelta(days=2)) for key in keys] == [True, False]


@pytest.mark.parametrize("content", ["short", " " * 40])
def test_a_current_version_that_protects_nothing_is_refused(lab: Lab, content: str) -> None:
    lab.rotate(content)
    source = _source(lab)

    with pytest.raises(ConfigError, match=r"sources\.shop: secret 'k'"):
        resolve_keys("shop", source, scheme_of(source), Secrets(lambda: lab.secrets))


def test_a_version_before_that_protects_nothing_is_left_out(aws: AwsLab) -> None:
    lab = Lab(aws, "changeme")
    lab.rotate(NEW)
    source = _source(lab)

    keys = resolve_keys("shop", source, scheme_of(source), Secrets(lambda: lab.secrets))

    assert [key.id for key in keys] == ["k"]


def test_an_api_key_counts_in_both_versions_until_the_overlap_ends(lab: Lab) -> None:
    lab.rotate(NEW)
    key = ApiKey(id="crm", key=SecretRef(f"aws-sm:{lab.name}"))

    callers = Callers([key], secrets=Secrets(lambda: lab.secrets))

    later = datetime.now(UTC) + timedelta(days=2)
    old, new = ([(b"authorization", f"Bearer {text}".encode())] for text in (OLD, NEW))
    assert callers.authenticate(old).id == callers.authenticate(new, later).id == "crm"
    with pytest.raises(Exception, match="unknown API key"):
        callers.authenticate(old, later)


def test_without_a_region_the_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(ConfigError, match="secrets_manager: no client"):
        AwsSecrets(SecretsManagerSettings())
