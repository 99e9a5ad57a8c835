"""What somebody outside a file relies on: definitions only, no sockets, no threads, nothing of ours imported."""
