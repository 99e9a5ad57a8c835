"""Tests of gateways/endpoints/."""
