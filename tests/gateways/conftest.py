"""Fixtures of the gateway's tests."""

from tests.embedded import embedded_broker
from tests.gateways.driver import _secrets, gateway

__all__ = ["_secrets", "embedded_broker", "gateway"]
