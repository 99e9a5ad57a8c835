"""Tests of gateways/egress/."""
