"""TIFF: its directory, read with care, and the pixels that Pillow must not be trusted with."""

import struct

from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.missing_pixels import OnBackground

_BITS_PER_SAMPLE, _PHOTOMETRIC, _BLACK_IS_ZERO = 258, 262, 1
# Bytes per value of the field types. Fields of bytes may be long (profiles, XMP), tables of numbers are short.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_MAX_TABLE_BYTES = 2**20


class TiffFile(OnBackground, TiffImageFile):
    """A TIFF on a background that Pillow neither turns nor reads sub-directories of."""

    def load_end(self) -> None:
        """Leave the pixels as they are stored."""


def tiff_directory(tiff: bytes) -> list[tuple[int, int, int, int]]:
    """Entries of the first directory of a TIFF: tag, type, count, and the value where it is one 16-bit number.

    Raises:
        struct.error: where the data ends too early.
    """
    order = "<" if tiff.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    (table,) = struct.unpack_from(f"{12 * entries}s", tiff, start + 2)
    return list(struct.iter_unpack(order + "HHIH2x", table))


def check_tiff_tags(data: bytes) -> None:
    """Refuses tags that claim more bytes than the file has: Pillow copies each tag's, overlapping or not.

    Raises:
        DecodeError: `corrupt`.
    """
    sizes = [(kind, _TYPE_SIZES.get(kind, 0) * count) for _, kind, count, _ in tiff_directory(data)]
    tables = sum(size for kind, size in sizes if kind not in _BYTE_TYPES)
    if sum(size for _, size in sizes) > len(data) or tables > _MAX_TABLE_BYTES:
        raise DecodeError("corrupt", f"TIFF: the tags claim more bytes than fit in a file of {len(data)}.")


def has_agreed_white(image: ImageFile) -> bool:
    """Whether Pillow reads the pixels as they are meant.

    It reads 12 bits of gray into a mode of 16 unscaled, and does not invert 16 bits whose white is zero.
    """
    assert isinstance(image, TiffImageFile)
    layout = (image.tag_v2.get(_BITS_PER_SAMPLE), image.tag_v2.get(_PHOTOMETRIC))
    return not image.mode.startswith("I;16") or layout == ((16,), _BLACK_IS_ZERO)


def tiff_bits(image: ImageFile, _: bytes) -> int:
    """Bits per channel, from the tags."""
    assert isinstance(image, TiffImageFile)
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
