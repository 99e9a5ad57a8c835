"""Gateways as one writes them in an afternoon; programs of the environment that bench/gateway/sides.py makes."""
