"""The one exception that decoding raises."""


class DecodeError(Exception):
    """An image, or a pair, that cannot be used.

    Attributes:
        reason: a key of `decode.REASONS`.
        message: one sentence for people.
        image: `generated`, `target`, `mask` or `pair`; empty when only one image was decoded.
    """

    def __init__(self, reason: str, message: str, image: str = "") -> None:
        super().__init__(reason, message, image)
        self.reason = reason
        self.message = message
        self.image = image

    def __str__(self) -> str:
        return f"{self.image} {self.reason}: {self.message}".lstrip()
