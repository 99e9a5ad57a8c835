"""A worker that looks every second, not every 30, whether its topics were made anew."""

import sys

import streams.membership
from streams.__main__ import run

if __name__ == "__main__":
    streams.membership._FOLLOW_INTERVAL_S = 1.0
    sys.exit(run())  # type: ignore[func-returns-value]
