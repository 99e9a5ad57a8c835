"""Tests of streams/providers/extract/."""
