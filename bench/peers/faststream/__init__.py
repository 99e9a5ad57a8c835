"""The job in FastStream."""
