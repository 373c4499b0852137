"""A runner that the program has never heard of."""

from apache_beam.runners.portability.fn_api_runner import FnApiRunner


class StubRunner(FnApiRunner):
    """Beam's local engine under another name."""
