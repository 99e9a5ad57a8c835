"""Putting an event on a topic."""
