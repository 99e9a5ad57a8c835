"""Tests of streams/fmstub/."""
