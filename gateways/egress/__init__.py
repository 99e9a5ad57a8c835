"""From the log to the outside."""
