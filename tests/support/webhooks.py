"""Webhooks on this machine: one answers, one stays silent, one refuses connections."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.serving import serving

SECRET = "s3cr3t"


class Receiver:
    """A webhook on this machine.

    Attributes:
        url: its address, which contains a secret.
        received: the JSON documents posted to it.
    """

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}/hooks/{SECRET}"
        self.received: list[dict[str, object]] = []


@contextmanager
def webhook(status: int = 200) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            receiver.received.append(json.loads(body))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_port)
    with serving(server):
        yield receiver


@contextmanager
def silent_webhook() -> Iterator[Receiver]:
    """A webhook that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Receiver(server.getsockname()[1])


@contextmanager
def refused_webhook() -> Iterator[Receiver]:
    """A webhook whose port is reserved, so that nobody else gets it, but does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Receiver(bound.getsockname()[1])
