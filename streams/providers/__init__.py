"""Who serves models: one file per provider, one protocol, one table."""
