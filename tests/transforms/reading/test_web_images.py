"""Images at http addresses: what a server on this machine may do, and a manifest that names some."""

import asyncio
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import shards
from support.serving import serving

from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.record_error import RecordError
from transforms.reading.web_images import Web, fetch_addresses, is_address
from transforms.schema import Fields
from transforms.worker.sandbox import Sandbox

IMAGE = b"an image" * 100
WEB = Web(most_bytes=1000, seconds=20)


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says."""

    asked: list[str]
    over = threading.Event()

    def do_GET(self) -> None:
        name = self.path.strip("/").split("/")[0]
        self.asked.append(self.path)
        if name == "redirect":
            self.answer(302, Location=self.path.removeprefix("/redirect/"))
        elif name in ("404", "503"):
            self.answer(int(name))
        elif name == "gzip":
            assert self.headers["Accept-Encoding"] == "identity"
            self.answer(200, gzip.compress(bytes(10**6)), **{"Content-Encoding": "gzip"})
        elif name == "large":
            self.answer(200, bytes(1001))
        elif name == "endless":
            self.answer(200, bytes(1 << 16), **{"Content-Length": ""})
        elif name == "cut":
            self.answer(200, IMAGE, **{"Content-Length": "5000"})
        elif name == "silent":
            self.over.wait(10)
        else:
            self.answer(200, IMAGE)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of a server."""
    Handler.asked = []
    server = Server(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"
        Handler.over.set()


def fetch(address: str, web: Web = WEB) -> bytes:
    """The content at the address. Raises RecordError."""
    (found,) = fetch_addresses([address], web).values()
    if isinstance(found, RecordError):
        raise found
    return found


@pytest.mark.parametrize("path", ["a.png", "a b.png?size=1&x=%2F", "redirect//a.png", "redirect//redirect//a.png"])
def test_fetches_what_is_there(site, path):
    assert fetch(f"{site}/{path}") == IMAGE


def test_bytes_stay_as_they_are_sent(site):
    assert gzip.decompress(fetch(f"{site}/gzip", Web(10_000, 20))) == bytes(10**6)


@pytest.mark.parametrize(
    ("path", "reason", "problem"),
    [
        ("404", "unreadable_image", "HTTP 404 Not Found"),
        ("503", "unreadable_image", "HTTP 503 Service Unavailable"),
        ("large", "too_many_bytes", "more than max_image_bytes, 1000"),
        ("endless", "too_many_bytes", "more than max_image_bytes, 1000"),
        ("cut", "unreadable_image", "ContentLengthError"),
        ("silent", "unreadable_image", "within 0.2 s, ten times max_record_seconds"),
        ("redirect/file:///etc/passwd", "unreadable_image", "NonHttpUrlRedirectClientError"),
        ("redirect/ftp://127.0.0.1/a.png", "unreadable_image", "NonHttpUrlRedirectClientError"),
        ("redirect//" * 12 + "a.png", "unreadable_image", "too many redirects"),
    ],
)
def test_what_cannot_be_fetched_has_a_reason(site, path, reason, problem):
    with pytest.raises(RecordError, match=re.escape(problem)) as caught:
        fetch(f"{site}/{path}", Web(1000, 0.2 if path == "silent" else 20))
    assert caught.value.reason == reason
    assert f"{site}/{path}" in str(caught.value)


def test_a_server_that_is_not_there():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for address in (
            f"http://127.0.0.1:{bound.getsockname()[1]}/a.png",
            "http://[::1/a.png",
            "http://",
            "http:///a",
        ):
            with pytest.raises(RecordError, match="cannot be fetched") as caught:
                fetch(address)
            assert caught.value.reason == "unreadable_image"


def test_many_at_once_keep_their_order(site):
    addresses = [f"{site}/404/{n}" if n % 5 == 0 else f"{site}/{n}.png" for n in range(40)]
    found = fetch_addresses(addresses, WEB)
    assert list(found) == addresses
    assert [content == IMAGE for content in found.values()] == [n % 5 != 0 for n in range(40)]


def test_works_where_a_loop_runs_already(site):
    async def notebook() -> bytes:
        return fetch(f"{site}/a.png")

    assert asyncio.run(notebook()) == IMAGE


@pytest.mark.parametrize(
    ("path", "expected"),
    [("http://a/b", True), ("HTTPS://a/b", True), ("gs://a/b", False), ("a/http://b", False), ("https:/a", False)],
)
def test_is_address(path, expected):
    assert is_address(path) == expected


class TestManifest:
    @pytest.fixture(scope="class")
    def manifest(self, site, tmp_path_factory):
        root = tmp_path_factory.mktemp("web")
        shards.write(root / "here.png", b"a file")
        addresses = [f"{site}/shared.png", f"{site}/404", f"{site}/large", "../secret.png"]
        lines = [{"id": str(n), "generated": address, "target": "here.png"} for n, address in enumerate(addresses)]
        lines.append({"id": "both", "generated": f"{site}/shared.png", "target": f"{site}/shared.png"})
        return shards.write(root / "m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())

    def read(self, manifest, fields):
        (series,) = list_chunks(manifest, "auto", fields)
        (encoded,) = read_series(series, fields, sandbox=Sandbox(enabled=False), max_image_bytes=1000)
        return encoded.pairs.to_pylist(), {failure.id: failure for failure in encoded.failures}

    def test_each_address_is_fetched_once_and_fails_alone(self, manifest):
        Handler.asked.clear()
        pairs, failures = self.read(manifest, Fields(allow_http=True))
        assert [(row["id"], row["generated"], row["target"]) for row in pairs] == [
            ("0", IMAGE, b"a file"),
            ("both", IMAGE, IMAGE),
        ]
        assert {id: failure.reason for id, failure in failures.items()} == {
            "1": "unreadable_image",
            "2": "too_many_bytes",
            "3": "outside_root",
        }
        assert sorted(Handler.asked) == ["/404", "/large", "/shared.png"]

    def test_nothing_is_fetched_without_the_flag(self, manifest):
        Handler.asked.clear()
        pairs, failures = self.read(manifest, Fields())
        assert pairs == []
        assert {failure.reason for id, failure in failures.items() if id != "3"} == {"not_a_file"}
        assert "give --allow_http" in failures["0"].message
        assert Handler.asked == []

    def test_an_address_as_root(self, site, tmp_path):
        file = shards.write(tmp_path / "m.csv", b"generated,target\na.png,b.png\n")
        pairs, failures = self.read(file, Fields(allow_http=True, image_root=f"{site}/set"))
        assert ([row["target"] for row in pairs], failures) == ([IMAGE], {})
