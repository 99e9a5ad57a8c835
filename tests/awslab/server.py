"""moto's server on a free port of the loopback, behind a small layer that can answer in its place.

Everything goes over HTTP, as to the real service: `AwsLab.client("sqs")` is boto3 with an endpoint URL. A fault is a
function that gets the request's action and its JSON, and answers, changes it, or lets it pass. The layer sees every
request, so a test can also wait for one.
"""

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import sqs_backends
from werkzeug.serving import WSGIRequestHandler, make_server

REGION = "eu-central-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
POLL_S = 0.1
# (status, document) to answer; None to let moto answer.
Reply = tuple[int, dict[str, Any]] | None
Fault = Callable[[str, dict[str, Any]], Reply]


class _Quiet(WSGIRequestHandler):
    def log(self, *_args: Any, **_kwargs: Any) -> None:
        pass


class AwsLab:
    """A running server.

    Attributes:
        url: its endpoint.
        calls: how often each action was asked for.
        faults: looked at in turn for every request; a test appends to it.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._clients: dict[str, Any] = {}
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._one_at_a_time = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []

    def start(self) -> None:
        """Begin serving."""
        self._thread.start()

    def close(self) -> None:
        """End it."""
        for client in self._clients.values():
            client.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def client(self, service: str) -> Any:
        """Return a boto3 client of a service."""
        if service in self._clients:
            return self._clients[service]
        # Its overloads want a literal.
        make: Any = boto3.client
        self._clients[service] = make(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        return self._clients[service]

    def queue(self, name: str, **attributes: str) -> "Queue":
        """Create a queue."""
        client = self.client("sqs")
        url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return Queue(client, url)

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """Hold a fault for a block."""
        self.faults.append(fault)
        try:
            yield
        finally:
            self.faults.remove(fault)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if not action:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        document = json.loads(body or b"{}")
        self.calls[action] += 1
        for fault in list(self.faults):
            reply = fault(action, document)
            if reply is not None:
                return _reply(*reply, start_response)
        if action == "ReceiveMessage" and document.get("WaitTimeSeconds"):
            # A poll of an empty queue ends soon, or every test would end by waiting for one.
            document["WaitTimeSeconds"] = 0
            body = json.dumps(document).encode()
            environ["CONTENT_LENGTH"] = str(len(body))
            time.sleep(POLL_S)
        environ["wsgi.input"] = io.BytesIO(body)
        # moto keeps its queues in plain lists: two receivers at once can get one group of a FIFO queue.
        with self._one_at_a_time:
            if action == "ReceiveMessage":
                _give_back_what_timed_out()
            passed: Iterable[bytes] = self._moto(environ, start_response)
        return passed


def _give_back_what_timed_out() -> None:
    """Do at once what moto 5.2.5 does message by message while it hands out, and thereby turns the order of a group.

    Of two messages of one group whose time is over, it passes over the first, because the second still counts as
    pending, and hands out the second.
    """
    for account in sqs_backends.values():
        for queue in account[REGION].queues.values():
            for message in [message for message in queue.pending_messages if message.visible]:
                queue.pending_messages.discard(message)


def _reply(status: int, document: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = json.dumps(document).encode()
    headers = [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))]
    start_response(f"{status} {'OK' if status == 200 else 'Fault'}", headers)
    return [body]


class Queue:
    """One queue, seen from outside of the door."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self.url = url
        attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        self.arn: str = attributes["QueueArn"]

    def send(self, *bodies: str, **options: Any) -> list[str]:
        """Send messages one after the other and return their ids."""
        return [
            self._client.send_message(QueueUrl=self.url, MessageBody=body, **options)["MessageId"] for body in bodies
        ]

    def send_batch(self, bodies: Sequence[str], groups: Sequence[str] = ()) -> None:
        """Send up to ten messages at once."""
        entries = [
            {"Id": str(place), "MessageBody": body} | ({"MessageGroupId": groups[place]} if groups else {})
            for place, body in enumerate(bodies)
        ]
        answer = self._client.send_message_batch(QueueUrl=self.url, Entries=entries)
        assert not answer.get("Failed"), answer["Failed"]

    def receive(self) -> list[dict[str, Any]]:
        """Return up to ten messages as another receiver gets them, which hides them."""
        answer = self._client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    def delete(self, *receipts: str) -> None:
        """Delete messages by their receipts."""
        for receipt in receipts:
            self._client.delete_message(QueueUrl=self.url, ReceiptHandle=receipt)

    def counts(self) -> tuple[int, int]:
        """Return how many messages are visible, and how many are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it, hidden or not."""
        return self.counts() == (0, 0)


def failing(action: str, code: str, times: int = 1, status: int = 400) -> Fault:
    """Return a fault: the next calls of an action fail as a whole."""
    left = [times]

    def fault(asked: str, _document: dict[str, Any]) -> Reply:
        if asked != action or left[0] <= 0:
            return None
        left[0] -= 1
        return status, {"__type": f"com.amazonaws.sqs#{code}", "message": "as the test wants"}

    return fault
