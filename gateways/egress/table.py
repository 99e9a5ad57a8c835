"""The one list of doors out; each is imported only when a configuration names it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from contracts.settings import ApiKey
from contracts.settings.egress import (
    ApiGatewayDoor,
    CallbackDoor,
    CallerCallbackDoor,
    DoorSettings,
    EventBridgeDoor,
    S3Door,
    SalesforceDoor,
    SnsDoor,
    SqsDoor,
)
from gateways.egress.base import Board, Door


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


class Shared(NamedTuple):
    """What some doors have in common with their process.

    Attributes:
        board: where callbacks keep the state of their endpoints; in this process alone when None.
        api_keys: the callers of the gateway.
    """

    board: Board | None = None
    api_keys: Sequence[ApiKey] = ()


NOTHING_SHARED = Shared()


def _callback(name: str, settings: CallbackDoor, shared: Shared) -> Door:
    from gateways.egress.notify import Notify

    return Notify(name, settings, shared.board)


def _caller_callback(name: str, settings: CallerCallbackDoor, shared: Shared) -> Door:
    from gateways.egress.notify_callers import NotifyCallers

    return NotifyCallers(name, settings, shared.api_keys)


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
# Those that need what the process shares.
SHARING: dict[str, Callable[[str, Any, Shared], Door]] = {
    "callback": _callback,
    "caller-callback": _caller_callback,
}


def create_door(name: str, settings: DoorSettings, shared: Shared = NOTHING_SHARED) -> Door:
    """Return the door for a section of the configuration; `name` is the section's.

    Raises:
        ConfigError: a secret is missing, or the section cannot work.
    """
    if settings.kind in SHARING:
        return SHARING[settings.kind](name, settings, shared)
    return TABLE[settings.kind](name, settings)
