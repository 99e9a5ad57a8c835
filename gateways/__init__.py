"""Every door between the outside and the log."""
