"""Tests of streams/pipeline, on a virtual clock."""
