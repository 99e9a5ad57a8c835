"""The job in Bytewax."""
