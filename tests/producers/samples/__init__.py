"""Tests of producers/samples/."""
