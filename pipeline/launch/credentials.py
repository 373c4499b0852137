"""Google credentials of the launcher: looked for once, at the start, so that nobody waits for ones that are not there.

Without credentials, Beam tries five times before it goes on anonymously (24 s), gcsfs asks the metadata server even
after google-auth has found that there is none, and what needs a network is retried for two minutes.
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
    """Make sure that the `gs://` paths can be asked for, anonymously at least: public buckets need no credentials.

    Where Google's own library finds credentials, as it does on Google's machines by their metadata server, nothing
    is done. It alone decides how long to wait for that server: it may be slow where a pod has just started.

    Args:
        arguments: paths, or flags with paths in them.

    Raises:
        UsageError: there are no credentials, and one of the paths is not public.
    """
    paths = [path for argument in arguments for path in _GS_PATH.findall(argument)]
    if not paths or _has_credentials():
        return
    for path in paths:
        try:
            _ask_anonymously(path)
        except (*READ_ERRORS, ValueError) as error:
            reason = "it is not public" if isinstance(error, NOT_PUBLIC) else f"without any there is {one_line(error)}"
            raise UsageError(
                f"cannot use {path}: there are no Google credentials on this machine, and {reason}; sign in: {SIGN_IN}"
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
    """One request without retries: does the object exist, or for a pattern, can its bucket be listed?"""
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
    """Tell Beam and gcsfs in this process what is known, so that they do not look for credentials themselves."""
    import fsspec.config
    from apache_beam.internal.gcp.auth import _Credentials

    # Beam has no option for it; setup.py pins the version whose attribute this is.
    _Credentials._credentials_init = True
    fsspec.config.conf.setdefault("gcs", {}).setdefault("token", "anon")
