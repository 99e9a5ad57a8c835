"""Tests of gateways/cli/."""
