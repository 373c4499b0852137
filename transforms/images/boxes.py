"""The boxes around the data of a file (ISO/IEC 14496-12), and what those of an AVIF say that Pillow does not."""

import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import AvifImagePlugin
from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.png import SRGB_CODES

# Decoders of many images at once need no threads of their own.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# Pillow walks boxes one by one.
_MOST_BOXES = 10_000


def open_avif(data: bytes) -> ImageFile:
    """Opens an AVIF without its XMP: `irot` and `imir` alone turn it (ISO/IEC 23000-22), of which Pillow makes EXIF."""
    image = AvifImagePlugin.AvifImageFile(BytesIO(data))
    image.info.pop("xmp", None)
    return image


def avif_bits(_: ImageFile, data: bytes) -> int:
    """Most bits per channel of the images in an AVIF (AV1 in ISOBMFF, 2.3.3)."""
    flags = [body[2] for kind, body in _avif_properties(data) if kind == b"av1C"]
    return max((12 if flag & 0x20 else 10) if flag & 0x40 else 8 for flag in flags or [0])


def avif_notes(_: ImageFile, data: bytes) -> tuple[str, ...]:
    """`color_space` if an AVIF's colours are not sRGB's (a profile is judged elsewhere)."""
    primaries, transfers = SRGB_CODES
    for kind, body in _avif_properties(data):
        if kind == b"colr" and body[:4] == b"nclx":
            codes = struct.unpack_from(">HH", body, 4)
            return () if codes[0] in primaries and codes[1] in transfers else ("color_space",)
    return ()


def _avif_properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for meta in inside(data, b"meta"):
        for properties in inside(meta[4:], b"iprp"):
            for container in inside(properties, b"ipco"):
                yield from boxes(container)


def inside(data: bytes, kind: bytes) -> list[bytes]:
    """The bodies of the boxes of one kind. Raises DecodeError for too many boxes."""
    return [body for found, body in boxes(data) if found == kind]


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box, up to where the data ends or makes no sense. Raises DecodeError for too many."""
    at = count = 0
    while at + 8 <= len(data):
        count += 1
        if count > _MOST_BOXES:
            raise DecodeError("corrupt", f"more than {_MOST_BOXES} boxes.")
        length, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, at + 8)
            header = 16
        end = at + length if length else len(data)
        if end < at + header or end > len(data):
            return
        yield kind, data[at + header : end]
        at = end
