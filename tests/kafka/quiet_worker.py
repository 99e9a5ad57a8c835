"""A worker whose producer hears nothing new of its topics between two looks of its client, 30 s apart."""

import sys

import streams.liveness
from streams.__main__ import run

if __name__ == "__main__":
    # What liveness asks every 10 s brings the client news of its topics.
    streams.liveness._ASK_EVERY_S = 3600.0
    sys.exit(run())  # type: ignore[func-returns-value]
