"""Measurements of the integration patterns, on a real Kafka broker started for them."""
