"""Look for the launcher's Google credentials once, at the start, so that a machine without them loses no time.

Without credentials, Beam tries five times before it goes on anonymously (24 s), gcsfs asks the metadata server even
after google-auth has found that there is none, and requests are retried for two minutes if there is no network.
"""

import os
import re
from collections.abc import Iterable

from pipeline.errors import UsageError
from transforms.storage.errors import NOT_PUBLIC, READ_ERRORS, SIGN_IN, one_line

_GS_PATH = re.compile(r"gs://[^,]+")
_KEY_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_TIMEOUT = 10  # seconds


def check_credentials(arguments: Iterable[str]) -> None:
    """Check that the `gs://` paths are accessible, at least anonymously: public buckets need no credentials.

    This does nothing if Google's own library finds credentials, as it does on Google's machines by asking their
    metadata server. The library decides how long to wait for that server, which may be slow in a pod that has just
    started.

    Args:
        arguments: paths, or flags with paths in them.

    Raises:
        UsageError: a path is not public, and this machine has no credentials.
    """
    paths = [path for argument in arguments for path in _GS_PATH.findall(argument)]
    if not paths or _has_credentials():
        return
    for path in paths:
        try:
            _ask_anonymously(path)
        except (*READ_ERRORS, ValueError) as error:
            reason = (
                "it is not public"
                if isinstance(error, NOT_PUBLIC)
                else f"anonymous access fails with {one_line(error)}"
            )
            raise UsageError(
                f"cannot use {path}: this machine has no Google credentials, and {reason}; sign in: {SIGN_IN}"
            ) from error
    _go_on_anonymously()


def _has_credentials() -> bool:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        if key := os.environ.get(_KEY_VARIABLE):
            raise UsageError(f"cannot use {_KEY_VARIABLE}={key}: {one_line(error)}; sign in: {SIGN_IN}") from error
        return False
    return True


def _ask_anonymously(path: str) -> None:
    """Make one request without retries: does the object exist, or, for a pattern, can its bucket be listed?"""
    from google.cloud.storage import Client

    bucket, _, name = path.removeprefix("gs://").partition("/")
    prefix = re.split(r"[*?\[]", name)[0]
    client = Client.create_anonymous_client()
    if name and prefix == name:
        client.bucket(bucket).blob(name).exists(timeout=_TIMEOUT, retry=None)
    else:
        found = client.list_blobs(bucket, prefix=prefix, max_results=1, timeout=_TIMEOUT, retry=None)
        next(iter(found), None)


def _go_on_anonymously() -> None:
    """Keep Beam and gcsfs in this process from looking for credentials themselves."""
    import fsspec.config
    from apache_beam.internal.gcp.auth import _Credentials

    # Beam has no option for this; the versions in setup.py have the attribute.
    _Credentials._credentials_init = True
    fsspec.config.conf.setdefault("gcs", {}).setdefault("token", "anon")
