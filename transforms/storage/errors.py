"""The errors of reading and writing files, local or in a store, and how to describe them to people."""

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError, InvalidOperation
from google.resumable_media import DataCorruption

# Raised by opening, reading and parsing when the file is at fault, not the program. Beam raises NotImplementedError for
# an object that is gzipped twice.
READ_ERRORS = (OSError, pa.ArrowException, GoogleAPIError, GoogleAuthError, DataCorruption, NotImplementedError)

# google-auth raises this when a request without credentials needs some.
NOT_PUBLIC = InvalidOperation


class UnavailableError(OSError):
    """A file could not be opened or read just now; the cause says why. Its content is not at fault."""


class ChangedError(OSError):
    """A file is not the one that was listed."""


class StoreError(OSError):
    """An object store refused a request or could not be asked. The message says why, and what to do.

    Attributes:
        status: of HTTP; 0 if no answer came.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


SIGN_IN = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS=KEY.json of a service account"

# The remedy for an error of Google Cloud Storage, by HTTP status.
_REMEDIES = {
    401: f"sign in: {SIGN_IN}",
    403: f"give that account a role on the bucket, such as roles/storage.objectUser, or take another one: {SIGN_IN}",
    404: "check the bucket's name",
}


def describe(error: Exception) -> str:
    """Describe an exception in one line for people, with the remedy for errors of Google's services."""
    cause = _cause(error)
    if isinstance(cause, ChangedError | StoreError):
        return str(cause)
    if isinstance(cause, NOT_PUBLIC):
        return f"it is not public, and there are no Google credentials on this machine; sign in: {SIGN_IN}"
    if isinstance(cause, GoogleAuthError):
        return f"the Google credentials do not work: {one_line(cause)}; renew them: {SIGN_IN}"
    remedy = _REMEDIES.get(cause.code or 0) if isinstance(cause, GoogleAPICallError) else None
    return f"{one_line(cause)}; {remedy}" if remedy else one_line(cause)


def not_done_reason(error: Exception) -> str:
    """The key of `schema.NOT_DONE` for an error of reading; empty if the file is at fault and will be another time."""
    return (
        "changed" if isinstance(error, ChangedError) else "unavailable" if isinstance(error, UnavailableError) else ""
    )


def one_line(error: Exception) -> str:
    """Say in one line what happened, without a remedy."""
    cause = _cause(error)
    text = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, GoogleAPICallError) and cause.errors:
        # The error's own text begins with the URL of the request.
        text = f"{cause.errors[0].get('message', cause.message)} (HTTP {cause.code:d})"
    return " ".join(text.split())


def _cause(error: Exception) -> Exception:
    """Unwrap Beam's error of an operation on many files: the first file's error."""
    details = list((error.exception_details or {}).values()) if isinstance(error, BeamIOError) else []
    if details and isinstance(details[0], Exception):
        return _cause(details[0])
    if isinstance(error, UnavailableError) and isinstance(error.__cause__, Exception):
        return _cause(error.__cause__)
    return error
