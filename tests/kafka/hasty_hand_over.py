"""A hand-over that gives up a request to Kafka after 3 s, not 10, and records after 5, not 15; it begins anew then."""

import sys

import producers.fenced
import producers.log_reader
import streams.handover.gathering
from streams.__main__ import run

if __name__ == "__main__":
    producers.log_reader._REQUEST_S = 3.0
    producers.fenced._OPEN_LIMIT_S = 5.0
    streams.handover.gathering._IDS_TIMEOUT_S = 3.0
    sys.exit(run())  # type: ignore[func-returns-value]
