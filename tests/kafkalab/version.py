"""Says which Kafka the tests use: the one that docker-compose.yml names, so that there is one place to change it.

Reads: docker-compose.yml.
"""

import re

from tests.support import ROOT

_IMAGE = re.compile(r"^\s*image:\s*[\"']?apache/kafka:(?P<version>\d+\.\d+\.\d+)[\"']?\s*(#.*)?$", re.MULTILINE)


def kafka_version() -> str:
    """Return the version of the `apache/kafka` image in docker-compose.yml.

    Raises:
        LookupError: when the file names none or several.
    """
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    versions = {match["version"] for match in _IMAGE.finditer(compose)}
    if len(versions) != 1:
        msg = f"docker-compose.yml should name one apache/kafka:X.Y.Z image, found {sorted(versions) or 'none'}"
        raise LookupError(msg)
    return versions.pop()


def kafka_image() -> str:
    """Return the image with its tag."""
    return f"apache/kafka:{kafka_version()}"
