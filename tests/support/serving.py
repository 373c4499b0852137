"""Serve in a thread while a block runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Answer requests inside the block; at its end the server is closed."""
    thread = threading.Thread(target=server.serve_forever)
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
