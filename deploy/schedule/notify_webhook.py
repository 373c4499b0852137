#!/usr/bin/env python3
"""Post a verdict to a webhook: `AUDIT_WEBHOOK_URL=https://... notify_webhook.py RUN/verdict.json`.

It needs only the standard library, so that any Python runs it. The address comes from the environment and is never
printed, because it is a secret: anyone who knows it can post.

Exit codes: 0 delivered; 1 not delivered, one line on stderr says why; 2 the request was wrong.
"""

import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

DELIVERED, UNDELIVERED, USAGE = 0, 1, 2


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Turns a redirection into an error: urllib would follow it with a GET that delivers nothing."""

    def redirect_request(self, *_: object) -> None:
        return None


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Post the verdict; return the exit code."""
    url = environment.get("AUDIT_WEBHOOK_URL", "")
    if len(arguments) != 1 or not url.lower().startswith(("https://", "http://")):
        print("usage: notify_webhook.py VERDICT.json, with AUDIT_WEBHOOK_URL=http(s)://...", file=sys.stderr)
        return USAGE
    try:
        seconds = _seconds(environment.get("AUDIT_WEBHOOK_SECONDS", "10"))
        verdict = Path(arguments[0]).read_bytes()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    problem = post(url, verdict, seconds)
    if problem:
        print(f"warning: the webhook did not get the verdict: {problem}", file=sys.stderr)
    return UNDELIVERED if problem else DELIVERED


def post(url: str, body: bytes, seconds: int) -> str:
    """Post JSON.

    Args:
        url: `http://` or `https://`.
        body: the JSON.
        seconds: time limit for the whole request.

    Returns:
        the error, without any part of the address; empty: the answer was 2xx.
    """
    outcome = [f"no answer within {seconds} s"]
    # urlopen's own time-out applies to each packet, and not to the look-up of the host.
    thread = threading.Thread(target=lambda: outcome.append(_post(url, body)), daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[-1]


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 600:
        raise ValueError(f"AUDIT_WEBHOOK_SECONDS={text} is not a whole number from 1 to 600")
    return int(text)


def _post(url: str, body: bytes) -> str:
    try:
        headers = {"Content-Type": "application/json", "User-Agent": "pairloss"}
        request = urllib.request.Request(url, body, headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request):
            return ""
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        # Their messages may quote the address.
        return type(getattr(error, "reason", error)).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
