"""What of the section `kafka` is missing or contradicts the rest is told with file, line and key."""

import pytest

from contracts.errors import ConfigError
from contracts.settings import build, parse
from tests.support import ROOT

OAUTH = "  oauth: {token_url: https://idp.example/token, client_id: me, client_secret: env:S}\n"
OAUTHBEARER = "  security_protocol: SASL_SSL\n  sasl_mechanism: OAUTHBEARER\n"
PLAIN = "  security_protocol: SASL_SSL\n  sasl_mechanism: PLAIN\n  sasl_username: me\n"


def said(section: str, **environ: str) -> str:
    """Return what is said about a section, of a file named penstock.yaml; empty when nothing is wrong."""
    try:
        build(parse("version: 1\nkafka:\n" + section, "penstock.yaml"), environ, ROOT)
    except ConfigError as error:
        return str(error).replace("penstock.yaml:", "")
    return ""


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (
            "  security_protocol: SASL_SSL\n",
            (
                "2: kafka.sasl_mechanism: found nothing, allowed: a mechanism, such as SCRAM-SHA-512, since "
                "security_protocol is SASL_SSL"
            ),
        ),
        (
            PLAIN,
            "2: kafka.sasl_password: found nothing, allowed: one, since sasl_mechanism is PLAIN",
        ),
        (
            OAUTHBEARER,
            "2: kafka.oauth: found nothing, allowed: a section, since sasl_mechanism is OAUTHBEARER",
        ),
        (
            "  sasl_mechanism: OAUTHBEARER\n" + OAUTH,
            (
                "2: kafka.security_protocol: found 'PLAINTEXT', allowed: SASL_SSL or SASL_PLAINTEXT, since "
                "sasl_mechanism is OAUTHBEARER"
            ),
        ),
        (
            OAUTHBEARER + "  oauth: {token_url: 'https://x/t', scope: s}\n",
            "5: kafka.oauth.client_id: is required\n5: kafka.oauth.client_secret: is required",
        ),
        (
            "  security_protocol: SASL_SSL\n  sasl_mechanism: AWS_MSK_IAM\n",
            "2: kafka.aws_region: found nothing, allowed: a region, since sasl_mechanism is AWS_MSK_IAM",
        ),
        (
            "  security_protocol: SASL_PLAINTEXT\n  sasl_mechanism: AWS_MSK_IAM\n  aws_region: eu-central-1\n",
            (
                "3: kafka.security_protocol: found 'SASL_PLAINTEXT', allowed: SASL_SSL, since "
                "sasl_mechanism is AWS_MSK_IAM"
            ),
        ),
        (
            "  security_protocol: SASL_SSL\n  sasl_mechanism: PLAIN\n  sasl_username: me\n  sasl_password: env:P\n"
            + OAUTH,
            "7: kafka.oauth: found 'a section', allowed: nothing, unless sasl_mechanism is OAUTHBEARER",
        ),
        (
            "  aws_region: eu-central-1\n",
            "3: kafka.aws_region: found 'eu-central-1', allowed: nothing, unless sasl_mechanism is AWS_MSK_IAM",
        ),
        (
            "  oauth: {token_url: 'https://x/t', client_id: me, client_secret: env:S, extensions: {a b: '1,2'}}\n",
            (
                "3: kafka.oauth.extensions.a b: must be a name of letters alone, as RFC 7628 has it; found 'a b'\n"
                "3: kafka.oauth.extensions.a b: must be printable ASCII without a comma; found '1,2'"
            ),
        ),
    ],
)
def test_what_does_not_fit_together_is_told_at_its_line(section: str, wrong: str) -> None:
    assert said(section) == wrong


@pytest.mark.parametrize(
    "section",
    [
        OAUTHBEARER + OAUTH,
        "  security_protocol: SASL_SSL\n  sasl_mechanism: AWS_MSK_IAM\n  aws_region: us-gov-east-1\n",
        "  security_protocol: SASL_SSL\n  sasl_mechanism: AWS_MSK_IAM\n  aws_region: eusc-de-east-1\n",
        "  sasl_mechanism: PLAIN\n  sasl_password: env:P\n  client_rack: euc1-az1\n",
    ],
)
def test_what_fits_together_is_taken(section: str) -> None:
    assert said(section) == ""


def test_a_secret_in_place_of_its_name_is_not_repeated() -> None:
    secret = "Xq8~kfE2-not-a-reference"
    text = f"  oauth: {{token_url: https://x/t, client_id: me, client_secret: {secret}}}\n"

    assert "kafka.oauth.client_secret: must be a reference" in said(text)
    assert secret not in said(text)
    assert secret not in said(OAUTH, PENSTOCK_KAFKA__OAUTH__CLIENT_SECRET=secret)
