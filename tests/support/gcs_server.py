"""A Google Cloud Storage server on a free loopback port, which can be told to fail, and the settings of its clients."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from apache_beam.internal.gcp import auth
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage
from support.serving import serving
from support.stores import FaultyServer

ACCOUNT = "tester@pairloss-tests.iam.gserviceaccount.com"
TOKEN = {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}
MESSAGES = {
    401: "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.",
    403: f"{ACCOUNT} does not have storage.objects access to the Google Cloud Storage object.",
    429: "The rate of requests is too high.",
    503: "We encountered an internal error. Please try again.",
}


@dataclass
class GcsServer(FaultyServer):
    """The running server.

    Attributes:
        key: file of a throw-away service account, whose tokens the server itself issues.
        anonymous: whether it serves requests without credentials.
    """

    scheme = "gs"
    storage: Storage
    key: Path = Path()
    anonymous: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a program that uses the server with the account's key."""
        return {**self.without_credentials, "GOOGLE_APPLICATION_CREDENTIALS": str(self.key)}

    @property
    def on_google(self) -> dict[str, str]:
        """Environment variables of a program on a Google machine, which gets credentials from the metadata server."""
        address = self.url.removeprefix("http://")
        changed = {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address, "NO_GCE_CHECK": "false"}
        return self.without_credentials | changed

    @property
    def without_credentials(self) -> dict[str, str]:
        """Environment variables of a program without credentials, even if this machine has some."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            # Without this, gcsfs asks for the kind of the bucket by gRPC, which the server does not speak.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "GOOGLE_APPLICATION_CREDENTIALS": "",
            "CLOUDSDK_CONFIG": str(self.key.parent),
            "NO_GCE_CHECK": "true",
            # google-auth asks Google by HTTPS where the account is valid. This proxy keeps requests on this machine.
            "HTTPS_PROXY": self.url,
        }

    def create_bucket(self, name: str) -> str:
        """Make a bucket and return its `gs://` path."""
        assert create_bucket(name, self.storage)
        return f"gs://{name}"

    def answer(self, request: str, headers: Mapping[str, str]) -> int:
        """The HTTP status of the error to answer with, or 0 for no error."""
        status = self.refusal(request)
        return 401 if "authorization" not in headers and not self.anonymous else status


class _Handler(RequestHandler):
    def __init__(self, gcs: GcsServer, *args: Any):
        self._gcs = gcs
        super().__init__(gcs.storage, *args)

    def _serve(self) -> None:
        if "Metadata-Flavor" in self.headers:
            answers = {"token": TOKEN, "?recursive=true": {"email": ACCOUNT, "scopes": []}}
            self._reply(200, next((value for end, value in answers.items() if end in self.path), {}))
        elif self.path == "/token":
            self._reply(200, TOKEN)
        elif status := self._gcs.answer(f"{self.command} {unquote(self.path)}", self.headers):
            message = MESSAGES[status]
            self._reply(status, {"error": {"code": status, "message": message, "errors": [{"message": message}]}})
        else:
            Router(self).handle(self.command)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (the names of http.server)

    def _reply(self, status: int, value: Mapping[str, Any]) -> None:
        # The client must be able to send its whole request before it reads the answer.
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # Some tests kill a client in the middle of a request.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve(directory: Path) -> Iterator[GcsServer]:
    """Run a server that keeps its objects in memory and its key file in the directory."""
    gcs = GcsServer(Storage(use_memory_fs=True))
    httpd = _Server(("127.0.0.1", 0), partial(_Handler, gcs))
    gcs.url = f"http://127.0.0.1:{httpd.server_port}"
    gcs.key = directory / "service_account.json"
    gcs.key.write_text(json.dumps(_service_account(f"{gcs.url}/token")))
    with serving(httpd):
        yield gcs


@contextmanager
def serve_this_process(directory: Path) -> Iterator[GcsServer]:
    """Run a server and give this process access to it."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with serve(directory) as gcs, pytest.MonkeyPatch.context() as patch:
        for name, value in gcs.environment.items():
            patch.setenv(name, value)
        # Beam looks for credentials once and remembers the result, even if it found none.
        patch.setattr(auth._Credentials, "_credentials_init", False)
        yield gcs


def _service_account(token_uri: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": "pairloss-tests",
        "private_key_id": "throw-away",
        "private_key": pem.decode(),
        "client_email": ACCOUNT,
        "token_uri": token_uri,
    }
