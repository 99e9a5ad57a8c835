"""Tests of streams/providers/."""
