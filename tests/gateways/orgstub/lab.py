"""The org stub in a process of its own, with some opportunities."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import ChildProcess

KEY, SECRET = "consumer-key", "consumer-secret-of-the-tests"
API = "/services/data/v62.0"
RECORDS = 12


@functools.cache
def key_pair() -> tuple[str, str]:
    """Return (private, public) key of the org's app, PEM, made once a session."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


class OrgLab:
    """A running org, and its side doors.

    Args:
        options: of the command, beyond those for its app.
        env: for the process.
    """

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-org-")
        self._options, self._env = options, env or {}
        folder = Path(self._folder.name)
        self.ca_file = folder / "ca.pem"
        (folder / "app.pem").write_text(key_pair()[1])
        (folder / "secret").write_text(SECRET)
        self.port = 0
        self.ids: list[str] = []
        self._process: ChildProcess | None = None
        self._http = requests.Session()
        self._http.trust_env = False

    @property
    def url(self) -> str:
        """Return its address."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def is_away(self) -> bool:
        """Tell whether it is stopped."""
        return self._process is None

    def start(self) -> None:
        """Listen, on the same port as before; the records are gone."""
        folder = Path(self._folder.name)
        app = ("--consumer-key", KEY, "--consumer-secret", f"file:{folder / 'secret'}")
        key = ("--certificate", str(folder / "app.pem"), "--tls-folder", str(folder))
        command = ("gateways.cli", "org-stub", "--port", str(self.port), *app, *key, *self._options)
        self._process = ChildProcess(*command, env=self._env).__enter__()
        self.port = int(self._process.wait_for(r"^listening on https://\S+:(\d+)$")[1])
        self._http.verify = str(self.ca_file)

    def stop(self) -> None:
        """Be away."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        """Stop, and remove what it left."""
        self.stop()
        self._http.close()
        self._folder.cleanup()

    def reset(self, records: int = RECORDS) -> None:
        """Become a new org with some opportunities; their ids are always the same."""
        self.call("DELETE", "/_stub")
        self.ids = self.create(records) if records else []

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request; any answer is returned."""
        return self._http.request(method, self.url + path, json=body, timeout=20, **options)

    def login(self) -> dict[str, str]:
        """Return the headers of a new session."""
        form = {"grant_type": "client_credentials", "client_id": KEY, "client_secret": SECRET}
        answer = self._http.post(self.url + "/services/oauth2/token", data=form, timeout=20)
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def create(self, count: int, first: int = 0) -> list[str]:
        """Create opportunities as an integration would, 200 a call; return their ids."""
        headers = self.login()
        ids = []
        for start in range(first, first + count, 200):
            batch = [opportunity(number) for number in range(start, min(start + 200, first + count))]
            answer = self.call("POST", f"{API}/composite/sobjects", {"records": batch}, headers=headers)
            ids += [str(result["id"]) for result in answer.json()]
        return ids

    def delete(self, number: int) -> None:
        """Put an opportunity into the recycle bin."""
        path = f"{API}/sobjects/Opportunity/{self.ids[number]}"
        assert self.call("DELETE", path, headers=self.login()).status_code == 204

    def type_in(self, number: int, **values: Any) -> None:
        """Change an opportunity as a person would."""
        path = f"{API}/sobjects/Opportunity/{self.ids[number]}"
        assert self.call("PATCH", path, values, headers=self.login()).status_code == 204

    def turn(self, **knobs: Any) -> None:
        """Set knobs; those that are not named stay."""
        answer = self.call("PATCH", "/_stub/knobs", knobs)
        assert answer.status_code == 200, answer.text

    def heal(self) -> None:
        """Take back every fault."""
        self.turn(fault="", fault_calls=None, retry_after_s=None, locked=[], vanishing=[])

    def end_sessions(self) -> None:
        """End every session."""
        self.call("DELETE", "/_stub/sessions")

    def state(self) -> dict[str, Any]:
        """Return counters and records."""
        found: dict[str, Any] = json.loads(self.call("GET", "/_stub/records").text)
        return found

    def writes(self, number: int) -> list[dict[str, Any]]:
        """Return what was written into an opportunity, write by write."""
        (record,) = [one for one in self.state()["records"] if one["id"] == self.ids[number]]
        return [write["values"] for write in record["writes"]]


def opportunity(number: int) -> dict[str, Any]:
    """Return the fields of a new opportunity."""
    return {
        "attributes": {"type": "Opportunity"},
        "Name": f"Customer {number} - Fleet telemetry",
        "StageName": "Prospecting",
        "Amount": 1000 + number,
        "CloseDate": "2026-12-18",
        "NextStep": "Technical workshop",
        "Description": f"Customer {number} runs 200 trucks and wants live alerts. Budget holder is the COO.",
    }
