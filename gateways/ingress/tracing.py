"""Starts or continues a trace. Source: W3C Trace Context, section 3.2 (checked 2026-11)."""

import random
import re

_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_STATE = re.compile(r"[\x20-\x7e]{1,512}")


def new_trace_parent() -> str:
    """Return the traceparent of a new, sampled trace."""
    # Random, not secret; the generator is seeded anew in a fork.
    digits = f"{random.getrandbits(192):048x}"
    return f"00-{digits[:32]}-{digits[32:]}-01"


def is_trace_parent(text: str) -> bool:
    """Tell whether a text is a valid traceparent."""
    return _TRACE_PARENT.fullmatch(text) is not None


def is_trace_state(text: str) -> bool:
    """Tell whether a text may be passed on as tracestate."""
    return _TRACE_STATE.fullmatch(text) is not None
