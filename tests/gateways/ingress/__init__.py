"""Tests of gateways/ingress/."""
