"""HEIC, read by pi-heif, which the extra `pairloss[heic]` installs. It decodes only, and turns images upright."""

from importlib.util import find_spec
from io import BytesIO

from PIL.ImageFile import ImageFile

HEIC_SUPPORTED = find_spec("pi_heif") is not None


def open_heic(data: bytes) -> ImageFile:
    """Opens a HEIC; more than 8 bits per channel become 8."""
    from pi_heif.as_plugin import HeifImageFile

    return HeifImageFile(BytesIO(data))


def heic_bits(image: ImageFile, _: bytes) -> int:
    """Bits per channel in the file."""
    return image.info.get("bit_depth", 8)
