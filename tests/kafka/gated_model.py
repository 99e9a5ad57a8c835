"""A model server in the test's own process that answers when it is told to: a kill finds calls where a test wants them.

Blocking: one thread per connection; `close` ends the listener, and what still waits is let go.
"""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class GatedModel:
    """Answers events below a number at once, and the others once the gate is open.

    Attributes:
        calls: per event number, how often it was called for.
        waiting: calls at the gate.
        answered: answers that were written.
    """

    def __init__(self, gate_from: int) -> None:
        self.calls: Counter[int] = Counter()
        self.waiting = 0
        self.answered = 0
        self._gate_from = gate_from
        self._gate = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Return the base URL for an `openai` provider."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def extra(self) -> int:
        """Return the calls beyond one per event."""
        return self.calls.total() - len(self.calls)

    def open(self) -> None:
        """Let all calls through, from now on."""
        self._gate.set()

    def answer(self, prompt: str) -> bytes:
        """Return the body of an answer, when it may go out."""
        number = int(json.loads(prompt)["n"])
        with self._lock:
            self.calls[number] += 1
        if number >= self._gate_from:
            with self._lock:
                self.waiting += 1
            self._gate.wait()
        choice = {"index": 0, "message": {"role": "assistant", "content": f"answer {number}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = model.answer(request["messages"][-1]["content"])
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # the worker was killed
                    self.close_connection = True
                else:
                    with model._lock:
                        model.answered += 1

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.open()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
