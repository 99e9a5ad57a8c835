"""Tests of gateways/."""
