"""From the outside to the log."""
