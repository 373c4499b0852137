"""The audit of finished runs: `pairloss audit VERB`.

Exit codes: 0 done, and passed; 1 a crash; 2 the request was wrong; 3 a gate failed.
"""

import logging
import os
import sys
from collections.abc import Sequence

from pipeline.cli import dispatch
from pipeline.console.streams import guarded
from pipeline.errors import USAGE, UsageError

# By name, the module, whose `main(argv)` returns the exit code, and a description.
VERBS = {
    "gate": ("pipeline.audit.gate", "judge a run by rules: may this dataset ship?"),
    "propose": ("pipeline.audit.propose", "write a first rules file from a good run"),
    "report": ("pipeline.audit.report", "write one HTML file: verdict, distributions, failures and worst pairs"),
    "compare": ("pipeline.audit.compare", "show runs, or the candidates of one run, side by side, pair by pair"),
    "trend": ("pipeline.audit.trend", "gather many runs into one page and one table"),
    "merge": ("pipeline.audit.merge", "merge the summaries of shards or days into one"),
}


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    usage = "usage: pairloss audit VERB ...\n\n`pairloss audit VERB --help` lists the flags of a verb."
    try:
        if argv and argv[0] in VERBS:
            # Importing Beam takes seconds. Its file systems also log the errors that they raise.
            from pipeline.credentials import check_credentials

            check_credentials(argv)
        return dispatch("verb", VERBS, argv, usage)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
