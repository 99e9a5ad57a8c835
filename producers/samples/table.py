"""The one list of samples: which source gets which."""

import random
from collections.abc import Callable
from functools import partial

from jsonpointer import resolve_pointer

from contracts.codec import decode_any_json
from contracts.settings import SourceSettings
from producers.samples.base import Sample
from producers.samples.fields import FORM, HEADER, fields_of
from producers.samples.generic import generic_event
from producers.samples.github import repository_event
from producers.samples.salesforce import opportunity_created
from producers.samples.stripe import payment_event
from producers.samples.support import ticket_event

SAMPLES: dict[str, Callable[[random.Random], Sample]] = {
    "github": repository_event,
    "salesforce": opportunity_created,
    "stripe": payment_event,
    "support": ticket_event,
}


def sampler(name: str, source: SourceSettings) -> Callable[[random.Random], Sample]:
    """Return what makes a source's events: the sample of its name or scheme, if it has all the settings read."""
    make = SAMPLES.get(name) or SAMPLES.get(source.scheme)
    if make is not None and _carries(make(random.Random(0)), source):  # noqa: S311 - sample data
        return make
    return partial(generic_event, source)


def _carries(sample: Sample, source: SourceSettings) -> bool:
    document = decode_any_json(sample.body)
    for _, kind, name in fields_of(source):
        if kind == FORM:
            return False
        is_there = name in sample.headers if kind == HEADER else resolve_pointer(document, name, None) is not None
        if not is_there:
            return False
    return True
