"""Tests of streams/handover/."""
