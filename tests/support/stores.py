"""Objects in stores, and servers of stores that can be told to fail."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipeline.run import USAGE, main
from transforms.storage.run_files import list_files
from transforms.storage.whole_files import read_file


@dataclass
class Fault:
    """Requests that the server refuses with an error.

    Attributes:
        request: pattern of the method and the unquoted path with its query, such as `POST .*name=run/metrics`.
        status: HTTP status of the refusal.
        times: number of requests to refuse; 0 refuses all.
        skip: number of requests to let pass first.
        seen: number of matching requests so far.
    """

    request: str
    status: int
    times: int = 0
    skip: int = 0
    seen: int = 0

    def hits(self, request: str) -> bool:
        if not re.match(self.request, request):
            return False
        self.seen += 1
        return self.seen > self.skip and (not self.times or self.seen <= self.skip + self.times)


@dataclass(kw_only=True)
class FaultyServer:
    """A running server.

    Attributes:
        url: its root.
        faults: requests to refuse.
        requests: methods and unquoted paths of all requests since the start.
        scheme: of its paths.
    """

    scheme: ClassVar[str]
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def refusing(self, *faults: Fault) -> Iterator[None]:
        """The server has these faults inside the `with` block."""
        self.faults.extend(faults)
        try:
            yield
        finally:
            for fault in faults:
                self.faults.remove(fault)

    def directory(self, bucket: str, test: str) -> str:
        """The path of a directory named after a test."""
        return f"{self.scheme}://{bucket}/{re.sub(r'[^A-Za-z0-9]+', '-', test)}"

    def refusal(self, request: str) -> int:
        """The HTTP status of the error to answer with, or 0 for no error."""
        self.requests.append(request)
        return next((fault.status for fault in self.faults if fault.hits(request)), 0)


def put(path: str, content: bytes) -> None:
    """Write an object."""
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)


def get(path: str) -> bytes:
    """Read an object."""
    return read_file(path)


def names(directory: str) -> list[str]:
    """The paths of all objects below a directory, relative to the directory."""
    return sorted(path.removeprefix(f"{directory}/") for path in list_files(directory, deep=True))


def table(directory: str) -> pa.Table:
    """The rows of all Parquet files in a directory, by their source."""
    files = [path for path in list_files(directory) if path.endswith(".parquet")]
    return pa.concat_tables(pq.read_table(io.BytesIO(get(path))) for path in sorted(files)).sort_by("source")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Assert that the request is refused at launch, and return its one line of error."""
    assert main(arguments) == USAGE
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
