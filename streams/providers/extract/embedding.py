"""Turns text into a vector by hashing words and letter triples: offline and deterministic, near only in wording."""

import hashlib
import json
import math

from contracts.settings.models import EMBEDDED_MODELS
from streams.providers.extract.lexicon import stems

MODEL_ID = EMBEDDED_MODELS["embedding"]
DIMENSIONS = 256
# Far below what tells two texts apart, and half as long in JSON.
_DIGITS = 7
_MAX_CHARS = 8 * 1024


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a unit vector; texts that share words and letter triples have a high cosine, whatever they mean."""
    vector = [0.0] * dimensions
    for root in stems(text[:_MAX_CHARS]):
        padded = f" {root} "
        for feature in (root, *(padded[index : index + 3] for index in range(len(padded) - 2))):
            digest = int.from_bytes(hashlib.blake2s(feature.encode("utf-8", "replace"), digest_size=5).digest())
            vector[digest % dimensions] += 1.0 if digest >> 32 & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


def as_json(text: str) -> str:
    """Return the vector of a text as a JSON array."""
    return json.dumps([round(value, _DIGITS) for value in embed(text)], separators=(",", ":"))
