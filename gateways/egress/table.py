"""The one list of doors out; each is imported only when a configuration names it."""

from collections.abc import Callable
from typing import Any

from contracts.settings.egress import (
    ApiGatewayDoor,
    DoorSettings,
    EventBridgeDoor,
    S3Door,
    SalesforceDoor,
    SnsDoor,
    SqsDoor,
)
from gateways.egress.base import Door


def _sns(name: str, settings: SnsDoor) -> Door:
    from gateways.egress.sns import Sns

    return Sns(name, settings)


def _sqs(name: str, settings: SqsDoor) -> Door:
    from gateways.egress.sqs import Sqs

    return Sqs(name, settings)


def _eventbridge(name: str, settings: EventBridgeDoor) -> Door:
    from gateways.egress.eventbridge import EventBridge

    return EventBridge(name, settings)


def _s3(name: str, settings: S3Door) -> Door:
    from gateways.egress.s3 import S3

    return S3(name, settings)


def _apigateway(name: str, settings: ApiGatewayDoor) -> Door:
    from gateways.egress.apigateway import ApiGateway

    return ApiGateway(name, settings)


def _salesforce(name: str, settings: SalesforceDoor) -> Door:
    from gateways.egress.salesforce import SalesforceRecords

    return SalesforceRecords(name, settings)


TABLE: dict[str, Callable[[str, Any], Door]] = {
    "sns": _sns,
    "sqs": _sqs,
    "eventbridge": _eventbridge,
    "s3": _s3,
    "apigateway": _apigateway,
    "salesforce": _salesforce,
}


def create_door(name: str, settings: DoorSettings) -> Door:
    """Return the door for a section of the configuration; `name` is the section's.

    Raises:
        ConfigError: a secret is missing, or the section cannot work.
    """
    return TABLE[settings.kind](name, settings)
