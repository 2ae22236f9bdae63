"""A small real program in place of a stage: `stand_in.py NAME MARKS [stubborn]`.

It answers /readyz on HEALTH_PORT (a gateway on PORT), and adds a line to the file MARKS when it starts and when it
is asked to end. A stubborn one does not end.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Answer(BaseHTTPRequestHandler):
    """200 for the two paths that mean readiness."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path in ("/readyz", "/v1/models") else 404)
        self.end_headers()


def main(name: str, marks: Path, *manners: str) -> None:
    def mark(what: str) -> None:
        with marks.open("a") as file:
            file.write(json.dumps({"name": name, "what": what, "pid": os.getpid(), "at": time.monotonic()}) + "\n")

    def end(number: int, frame: object) -> None:
        mark("asked")
        if "stubborn" not in manners:
            # In a thread of its own, because the server's loop runs in this one.
            threading.Thread(target=server.shutdown).start()

    port = os.environ["PORT" if name.startswith("gateway") else "HEALTH_PORT"]
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Answer)
    signal.signal(signal.SIGTERM, end)
    mark("started")
    server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
