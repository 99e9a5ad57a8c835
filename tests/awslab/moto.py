"""moto's server in a thread of this process, and boto3 clients on it."""

import functools
import urllib.request
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"
ACCOUNT = "123456789012"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@functools.cache
def session() -> Any:
    """Return a boto3 session with credentials that only an emulator takes, one a run: its loading costs a second."""
    return boto3.session.Session(
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )


class Moto:
    """The server; everything in it is gone after `reset`."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._clients: dict[str, Any] = {}

    def start(self) -> None:
        """Listen."""
        self._server.start()

    def reset(self) -> None:
        """Forget everything: what is in it belongs to the process, not to the server."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")  # noqa: S310 - our own server
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - the same

    def stop(self) -> None:
        """Stop, and close the clients."""
        for client in self._clients.values():
            client.close()
        self._server.stop()

    @property
    def url(self) -> str:
        """Return the address."""
        host, port = self._server.get_host_and_port()
        return f"http://{host}:{port}"

    def client(self, service: str) -> Any:
        """Return a boto3 client."""
        if service not in self._clients:
            config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
            self._clients[service] = session().client(service, endpoint_url=self.url, config=config)
        return self._clients[service]

    def bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
