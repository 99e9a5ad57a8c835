"""Tests of gateways/orgstub/."""
