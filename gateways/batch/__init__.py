"""Batch jobs: JSON lines onto the bulk lane, and their outcomes back into one object."""
