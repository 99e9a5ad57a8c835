"""Hostile input: the adversarial table against the shipped server, and the fuzzer of `make fuzz-gateway`."""
