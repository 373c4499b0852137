"""The error of a record that cannot be used."""


class RecordError(ValueError):
    """A record that cannot be used: a stable reason code, a line for people, and the offending bytes."""

    def __init__(self, reason: str, message: str, data: bytes | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.data = data


def too_many_bytes(size: int, most_bytes: int) -> RecordError:
    """The error of an image that is too long to be read."""
    return RecordError("too_many_bytes", f"{size} bytes; max_image_bytes is {most_bytes}.")
