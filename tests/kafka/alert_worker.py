"""A worker that misses its brokers after 10 s of silence, not 25; it asks them as much more often."""

import sys

import streams.liveness
import streams.watchdog
from streams.__main__ import run

if __name__ == "__main__":
    streams.liveness._ASK_EVERY_S = 4.0
    streams.liveness._ASK_LIMIT_S = 2.0
    streams.liveness.KAFKA_SILENCE_S = 10.0  # type: ignore[attr-defined]
    streams.watchdog.KAFKA_SILENCE_S = 10.0
    streams.watchdog._KAFKA_KNOWN_S = 12.0
    sys.exit(run())  # type: ignore[func-returns-value]
