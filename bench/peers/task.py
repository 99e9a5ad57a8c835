"""What every Python peer needs for the job, with the standard library alone: its arguments, the request, the result.

The job: record -> POST to the model, the record's text as the prompt -> result record under the same key.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

ATTEMPTS = 5
RETRY_S = 0.1
OK = 200
POISON = 400


@dataclass(frozen=True)
class Task:
    """Where to read, ask and write; `in_flight` calls at a time.

    Attributes:
        folder: for what outlives a kill on this machine.
    """

    bootstrap: str
    source: str
    results: str
    in_flight: int
    model_url: str
    group: str
    session_timeout_s: float
    folder: str


def read_task() -> Task:
    """Read the command line: the fields in order."""
    bootstrap, source, results, in_flight, url, group, session, folder = sys.argv[1:9]
    return Task(bootstrap, source, results, int(in_flight), url, group, float(session), folder)


def request(value: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the call for a record."""
    event = json.loads(value)
    body = {"model": "bench", "messages": [{"role": "user", "content": event["text"]}], "max_tokens": 512}
    headers = {"Content-Type": "application/json", "X-Client-Request-Id": f"e{event['n']}"}
    return headers, json.dumps(body).encode()


def result(value: bytes, status: int, response: bytes) -> bytes:
    """Return the result record's value."""
    number: int = json.loads(value)["n"]
    output: Any = json.loads(response)["choices"][0]["message"]["content"] if status == OK else None
    return json.dumps({"n": number, "output": output, "error": None if status == OK else status}).encode()
