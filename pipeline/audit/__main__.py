"""The audit of finished runs: `pairloss audit VERB`.

Exit codes: 0 done, and passed; 1 a crash; 2 the request was wrong; 3 a gate failed.
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from pipeline.errors import USAGE, UsageError, nearest

# Each verb is a module here with a function `main(argv) -> exit code`.
VERBS = {
    "gate": "judge a run by rules: may this dataset ship?",
    "propose": "write a first rules file from a good run",
    "report": "write one HTML file: verdict, distributions, failures and worst pairs",
    "compare": "show runs side by side: which pairs got better, and which got worse",
    "trend": "gather many runs into one page and one table",
    "merge": "merge the summaries of shards or days into one",
}

_HELP = "usage: pairloss audit VERB ...\n\n`pairloss audit VERB --help` lists the flags of a verb.\n\n" + "\n".join(
    f"  {verb:8} {what}" for verb, what in VERBS.items()
)


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else USAGE
    verb, *arguments = argv
    if verb not in VERBS:
        hint = nearest(verb, VERBS)
        print(f"error: no verb {verb!r}.{hint} The verbs are {', '.join(VERBS)}", file=sys.stderr)
        return USAGE
    # Importing Beam takes seconds. Its file systems also log the errors that they raise.
    from pipeline.credentials import check_credentials

    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        check_credentials(arguments)
        code: int = importlib.import_module(f"pipeline.audit.{verb}").main(arguments)
        return code
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
