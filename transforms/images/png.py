"""PNG: missing pixels found, and the bits of a channel."""

from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from transforms.images.missing_pixels import OnBackground


class PngFile(OnBackground, PngImageFile):
    """A PNG on a background."""


def png_bits(_: ImageFile, data: bytes) -> int:
    """Bits per channel, from the header."""
    return data[24]
