"""The error that ends a command with one message, and the exit codes."""

OK, CRASH, USAGE, NOTHING_SCORED = 0, 1, 2, 3


class UsageError(Exception):
    """The user asked for what cannot be: one message says what was given, what is allowed and what helps."""
