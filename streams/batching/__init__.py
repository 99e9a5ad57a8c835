"""Several events of a route in one model call; see docs/batching.md."""
