"""Fixtures of the doors' tests."""

from tests.awslab.fixtures import aws, aws_server

__all__ = ["aws", "aws_server"]
