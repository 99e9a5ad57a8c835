"""A program for tests of the supervisor: serves /readyz, or does one of the things that go wrong."""

import argparse
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class _Ready(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        """Answer every path."""
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"not caught up")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def _end_slowly(*_args: object) -> None:
    time.sleep(1.8)
    sys.exit(0)


def main() -> None:
    """Behave as told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", default="serve")
    parser.add_argument("--port-file", type=Path, required=True)
    options = parser.parse_args()
    if options.mode == "fail":
        sys.exit("the disk is on fire")
    if options.mode == "mute":
        sys.exit(1)
    if options.mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.mode == "slow":
        signal.signal(signal.SIGTERM, _end_slowly)
    if options.mode == "parent":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    if options.mode == "unready":
        _Ready.status = 503
    if options.mode == "silent":
        time.sleep(300)
    server = HTTPServer(("127.0.0.1", 0), _Ready)
    options.port_file.write_text(str(server.server_port), encoding="ascii")
    print("listening", os.getpid(), flush=True)  # noqa: T201 - a program
    server.serve_forever()


if __name__ == "__main__":
    main()
