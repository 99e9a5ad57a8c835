"""A worker on a Faust whose own default of broker_max_poll_interval is seconds, not a quarter of an hour.

What the worker sets itself goes before it; without that setting the tests' waits would have to be longer than 1,000 s.
"""

import functools
import os
import sys
from typing import Any

import faust

from streams.__main__ import run

_app = faust.App


@functools.wraps(_app)
def short(*args: Any, **settings: Any) -> faust.App:
    """Make an app with the short default."""
    return _app(*args, **{"broker_max_poll_interval": float(os.environ["TEST_POLL_INTERVAL_S"]), **settings})


if __name__ == "__main__":
    import streams.app

    streams.app.faust.App = short  # type: ignore[attr-defined]
    sys.exit(run())  # type: ignore[func-returns-value]
