"""Chaos: seeded faults on real Kafka, real worker processes, and a ledger that must balance at the end."""
