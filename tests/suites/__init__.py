"""Conformance suites: what every adapter of a kind must do."""
