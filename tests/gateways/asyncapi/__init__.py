"""Tests of gateways/asyncapi/."""
