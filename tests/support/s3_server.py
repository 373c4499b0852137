"""An S3 server on a free loopback port, which can be told to fail: moto's."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from support.serving import serving
from support.stores import FaultyServer
from werkzeug.serving import make_server

from transforms.storage import s3

_ERRORS = {403: ("AccessDenied", "Access Denied"), 500: ("InternalError", "We encountered an internal error.")}


@dataclass
class S3Server(FaultyServer):
    """The running server."""

    scheme = "s3"

    @property
    def without_credentials(self) -> dict[str, str]:
        """Environment variables of a program without credentials, even if this machine has some."""
        nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
        empty = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"), "")
        return {"AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true", **nowhere, **empty}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a program that may use the server."""
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        with_profile = self.without_credentials | keys
        return {name: value for name, value in with_profile.items() if name != "AWS_PROFILE"}

    def create_bucket(self, name: str) -> str:
        """Make a bucket and return its `s3://` path."""
        boto3.client("s3").create_bucket(Bucket=name)
        return f"s3://{name}"

    def application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The server as a WSGI application, around moto's."""
        address = unquote(environ.get("RAW_URI") or f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        request = f"{environ['REQUEST_METHOD']} {re.sub('[?]$', '', address)}"
        status = self.refusal(request)
        if not status:
            return self.moto(environ, start_response)
        # The client must be able to send its whole request before it reads the answer.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        code, message = _ERRORS[status]
        content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        start_response(f"{status} {code}", [("Content-Type", "text/xml"), ("Content-Length", str(len(content)))])
        return [content]

    def __post_init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)


@contextmanager
def serve_this_process() -> Iterator[S3Server]:
    """Run a server that keeps its objects in memory, and give this process access to it."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = S3Server()
    httpd = make_server("127.0.0.1", 0, server.application, threaded=True)
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    with serving(httpd), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        # A process keeps its client, which belongs to another server.
        s3._new_client.cache_clear()
        yield server
    s3._new_client.cache_clear()
