#!/usr/bin/env python3
"""Tells by its exit code whether a URL answers 200 within 3 s: the image's health check, for it has no curl.

Blocking: one HTTP request, 3 s at most.
"""

import http.client
import sys
import urllib.parse

TIMEOUT_S = 3.0


def main(url: str) -> int:
    """Return 0 when the URL answers 200, 1 otherwise, and print why."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        # Docker keeps the output of failed checks: `docker inspect` then shows the reason the process gave.
        sys.stdout.write(f"{answer.status} {answer.read(500).decode(errors='replace')}\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"{url}: {error}\n")
        return 1
    else:
        return 0 if answer.status == http.client.OK else 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
