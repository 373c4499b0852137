"""What reading and writing files raises, local or `gs://`, and how to say it."""

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError, InvalidOperation
from google.cloud.storage.exceptions import DataCorruption

# What opening, reading and parsing a file raise when the file, not the program, is at fault. NotImplementedError is
# Beam's answer to an object that is gzipped twice.
READ_ERRORS = (OSError, pa.ArrowException, GoogleAPIError, GoogleAuthError, DataCorruption, NotImplementedError)

# What google-auth makes of the answer to a request without credentials that needs some.
NOT_PUBLIC = InvalidOperation

SIGN_IN = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS=KEY.json of a service account"

# By HTTP status, what to do about an answer of Google Cloud Storage.
_REMEDIES = {
    401: f"sign in: {SIGN_IN}",
    403: f"give that account a role on the bucket, such as roles/storage.objectUser, or take another one: {SIGN_IN}",
    404: "check the bucket's name",
}


def describe(error: Exception) -> str:
    """An exception as one line for people; of Google's services with what helps."""
    cause = _cause(error)
    if isinstance(cause, NOT_PUBLIC):
        return f"it is not public, and there are no Google credentials on this machine; sign in: {SIGN_IN}"
    if isinstance(cause, GoogleAuthError):
        return f"the Google credentials do not work: {tell(cause)}; renew them: {SIGN_IN}"
    remedy = _REMEDIES.get(cause.code or 0) if isinstance(cause, GoogleAPICallError) else None
    return f"{tell(cause)}; {remedy}" if remedy else tell(cause)


def tell(error: Exception) -> str:
    """What happened, in one line."""
    cause = _cause(error)
    text = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, GoogleAPICallError) and cause.errors:
        # Without the address that was asked.
        text = f"{cause.errors[0].get('message', cause.message)} (HTTP {cause.code:d})"
    return " ".join(text.split())


def _cause(error: Exception) -> Exception:
    """What lies below Beam's error of an operation on many files: the error of the first."""
    details = list((error.exception_details or {}).values()) if isinstance(error, BeamIOError) else []
    if details and isinstance(details[0], Exception):
        return _cause(details[0])
    return error
