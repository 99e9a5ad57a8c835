"""Measurements of the gateway as a receiver of webhooks, on a real Kafka broker started for them."""
