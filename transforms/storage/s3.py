"""`s3://` for Beam: Amazon S3, and stores with its protocol such as MinIO. Needs the extra `pairloss[aws]`.

Beam's own file system for S3 makes a client for every operation, cannot write an empty object, uploads what was written
before an error as if it were whole, and tells no ETags. This one takes its place.
"""

import io
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from apache_beam.io.aws import s3filesystem
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystemio import Downloader, DownloaderStream
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from google.api_core.exceptions import RetryError
from google.api_core.retry import Retry

from transforms.storage.errors import ChangedError, StoreError

_READ_BYTES = 8 << 20
# A connection may break while an object's bytes arrive, which boto3 does not repair.
_TRIES = 3
# S3 takes no more in one request.
_DELETED_AT_ONCE = 1000
# More than the threads that read images at once, so that none waits for a connection.
_CONNECTIONS = 32
_ESCAPED = re.compile(r"\[([*?\[])\]")
# Beam's flags for S3, and boto3's names for them.
_GIVEN = {
    "s3_access_key_id": "aws_access_key_id",
    "s3_secret_access_key": "aws_secret_access_key",
    "s3_session_token": "aws_session_token",
    "s3_endpoint_url": "endpoint_url",
    "s3_region_name": "region_name",
    "s3_verify": "verify",
}
_SIGN_IN = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_lock = threading.Lock()
# Set once a store has answered. One that never has is probably not there, and nobody should wait for it.
_answered = threading.Event()
_Answer = TypeVar("_Answer")


class S3Metadata(FileMetadata):
    """Metadata of an object, with the ETag that its content decides."""

    def __init__(self, path: str, size: int, answer: Mapping[str, Any]) -> None:
        # Listings of some stores have milliseconds that the answer for a single object lacks.
        super().__init__(path, size, float(int(answer["LastModified"].timestamp())))
        self.etag: str = answer.get("ETag", "").strip('"')


class S3FileSystem(s3filesystem.S3FileSystem):
    """Beam's interface of a file system. Files are read and written as they are, whatever `compression_type` says."""

    @classmethod
    def scheme(cls) -> str:
        return "s3"

    @property
    def _client(self) -> Any:
        # Paths are joined without one.
        return _client(self._options)

    def exists(self, path: str) -> bool:
        try:
            return bool(_split(path)[1] and self.metadata(path))
        except StoreError as error:
            if error.status == 404:
                return False
            raise

    def metadata(self, path: str) -> S3Metadata:
        bucket, key = _split(path)
        answer = _ask(self._client.head_object, Bucket=bucket, Key=key)
        return S3Metadata(path, answer["ContentLength"], answer)

    def _list(self, dir_or_prefix: str) -> Iterator[S3Metadata]:
        bucket, prefix = _split(dir_or_prefix)
        wanted = {"Bucket": bucket, "Prefix": prefix}
        while wanted:
            page = _ask(self._client.list_objects_v2, **wanted)
            for found in page.get("Contents", ()):
                # An empty object of such a name stands for a directory.
                if not found["Key"].endswith("/"):
                    yield S3Metadata(f"s3://{bucket}/{found['Key']}", found["Size"], found)
            wanted = wanted | {"ContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else {}

    def open(
        self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.UNCOMPRESSED
    ) -> io.BufferedReader:
        found = self.metadata(path)
        stream = DownloaderStream(_Download(self._client, found), read_buffer_size=_READ_BYTES)
        return io.BufferedReader(stream, _READ_BYTES)

    def create(
        self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.UNCOMPRESSED
    ) -> "_Upload":
        return _Upload(self._client, path)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, given as patterns in which wildcards are escaped."""
        keys = defaultdict(list)
        for path in paths:
            bucket, key = _split(_ESCAPED.sub(r"\1", path))
            keys[bucket].append(key)
        failed = {}
        for bucket, inside in keys.items():
            for start in range(0, len(inside), _DELETED_AT_ONCE):
                some = [{"Key": key} for key in inside[start : start + _DELETED_AT_ONCE]]
                answer = _ask(self._client.delete_objects, Bucket=bucket, Delete={"Objects": some, "Quiet": True})
                for error in answer.get("Errors", ()):
                    failed[f"s3://{bucket}/{error['Key']}"] = _error(error, 403 * (error["Code"] == "AccessDenied"))
        if failed:
            raise BeamIOError("Delete operation failed", failed)


# Beam finds a file system by its scheme, and refuses a scheme that two of them have.
s3filesystem.S3FileSystem.scheme = classmethod(lambda cls: "s3-of-beam")


class _Download(Downloader):
    """Reads an object in the version that it had when it was opened."""

    def __init__(self, client: Any, found: S3Metadata) -> None:
        self._client = client
        self._found = found

    @property
    def size(self) -> int:
        return self._found.size_in_bytes

    def get_range(self, start: int, end: int) -> bytes:
        bucket, key = _split(self._found.path)
        asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{end - 1}"}
        asked |= {"IfMatch": self._found.etag} if self._found.etag else {}
        return _ask(self._fetch, asked)

    def _fetch(self, asked: Mapping[str, Any]) -> bytes:
        from botocore.exceptions import BotoCoreError

        for tries_left in reversed(range(_TRIES)):
            answer = self._client.get_object(**asked)
            try:
                content: bytes = answer["Body"].read()
                break
            except BotoCoreError:
                if not tries_left:
                    raise
        return content


class _Upload:
    """A file that becomes an object, whole, when it is closed. Leaving its block by an error makes no object.

    It is no `io.IOBase`, which would close it, and so upload it, when it is garbage-collected.
    """

    def __init__(self, client: Any, path: str) -> None:
        self._client = client
        self._path = path
        self._content: io.BytesIO | None = io.BytesIO()

    def write(self, content: bytes) -> int:
        if self._content is None:
            raise ValueError("write to a closed file")
        return self._content.write(content)

    def close(self) -> None:
        content, self._content = self._content, None
        if content is not None:
            _ask(self._upload, content.getvalue())

    def _upload(self, content: bytes) -> None:
        self._client.upload_fileobj(io.BytesIO(content), *_split(self._path))

    def __enter__(self) -> "_Upload":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        self._content = None


def _split(path: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _client(options: PipelineOptions | None) -> Any:
    """A client of boto3, one for all paths and threads of the process."""
    flags = options.view_as(S3Options) if isinstance(options, PipelineOptions) else None
    given = {name: value for flag, name in _GIVEN.items() if (value := getattr(flags, flag, None))}
    with _lock, _told():
        return _new_client(tuple(given.items()))


@lru_cache
def _new_client(given: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    settings = dict(given)
    session = boto3.session.Session()
    # Everybody may read public buckets.
    unsigned = "aws_access_key_id" not in settings and session.get_credentials() is None
    config = Config(
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 5},
        signature_version=UNSIGNED if unsigned else None,
    )
    return session.client("s3", config=config, **settings)


def _ask(request: Callable[..., _Answer], *args: Any, **kwargs: Any) -> _Answer:
    """The answer to a request; a store that has answered before and now does not is asked for two minutes."""
    from botocore.exceptions import ClientError

    with _told():
        try:
            answer = _RETRY(request)(*args, **kwargs)
        except RetryError as error:
            raise error.cause from error
        except ClientError:
            _answered.set()
            raise
    _answered.set()
    return answer


def _is_outage(error: Exception) -> bool:
    from botocore.exceptions import ConnectionError, HTTPClientError

    return _answered.is_set() and isinstance(error, ConnectionError | HTTPClientError)


# As long as the client of gs:// waits. boto3 itself gives up in seconds if connections are refused or hosts are gone.
_RETRY = Retry(predicate=_is_outage, maximum=20.0, timeout=120.0)


@contextmanager
def _told() -> Iterator[None]:
    """Raise boto3's errors as StoreError, or as ChangedError if the object was replaced since it was opened."""
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise StoreError("s3:// needs boto3, which is not installed; install pairloss[aws]") from error
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status == 412:
            raise ChangedError("the object was replaced while it was read") from error
        raise _error(error.response.get("Error", {}), status) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreError(" ".join(str(error).split())) from error


def _error(answer: Mapping[str, str], status: int) -> StoreError:
    text = f"{answer.get('Message') or answer.get('Code', 'no reason given')} (HTTP {status})"
    if answer.get("Code") == "NoSuchBucket":
        text += "; check the bucket's name"
    elif status == 404:
        text = "no such object"
    elif status == 403:
        text += f"; sign in with an account that may use the bucket: {_SIGN_IN}"
    return StoreError(text, status)
