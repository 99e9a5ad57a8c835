"""The one list of envelopes."""

from gateways.ingress.envelopes import body, eventbridge, penstock, s3, sns
from gateways.ingress.envelopes.base import Envelope

ENVELOPES: dict[str, Envelope] = {
    "body": body.unwrap,
    "sns": sns.unwrap,
    "eventbridge": eventbridge.unwrap,
    "s3": s3.unwrap,
    "penstock": penstock.unwrap,
}
