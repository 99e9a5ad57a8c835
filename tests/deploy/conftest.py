"""Fixtures of the deployment's tests."""

from tests.gateways.driver import secret_environment

__all__ = ["secret_environment"]
