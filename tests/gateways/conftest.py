"""Fixtures of the gateway's tests."""

from tests.embedded import embedded_broker
from tests.gateways.driver import gateway, secret_environment

__all__ = ["embedded_broker", "gateway", "secret_environment"]
