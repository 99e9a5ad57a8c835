"""The metrics, as Prometheus, its rules and the dashboard see them."""
