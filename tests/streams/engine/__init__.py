"""Tests of streams/engine, on a virtual clock."""
