"""The job in pyrallel-consumer."""
