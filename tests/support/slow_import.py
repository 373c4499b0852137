"""A task whose module takes long to import."""

import time

while time.process_time() < 1.5:
    pass


def nothing(arguments, parts, file):
    """An item, at once."""
    yield "done", []
