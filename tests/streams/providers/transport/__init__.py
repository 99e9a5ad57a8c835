"""Tests of streams/providers/transport."""
