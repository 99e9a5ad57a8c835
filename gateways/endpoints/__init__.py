"""The handlers behind the gateway's paths."""
