"""JPEG 2000: what its boxes say of colours, white as white, and tiles that OpenJPEG does not miss."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from transforms.images.boxes import inside
from transforms.images.decode_error import DecodeError
from transforms.images.sixteen_bits import load_samples, scaled

_CODESTREAM = b"\xff\x4f\xff\x51"
_TILE_PART = b"\xff\x90"
_MOST_TILE_PARTS = 100_000
_ICC_METHODS = frozenset({2, 3})
# CMYK, sRGB, gray and the YCbCr of sRGB, of which Pillow makes RGB.
_KNOWN_SPACES = frozenset({12, 16, 17, 18})
# Number, kind (0 is a colour, 1 is opacity) and colour of channels: CMYK or RGB, RGB with opacity, gray with it.
_COLOURS = frozenset((n, 0, n + 1) for n in range(4))
_CHANNELS = (_COLOURS, _COLOURS - {(3, 0, 4)} | {(3, 1, 0)}, frozenset({(0, 0, 1), (1, 1, 0)}))


def open_jpeg2000(data: bytes) -> ImageFile:
    """Opens a JPEG 2000, with its profile.

    Raises:
        DecodeError: `corrupt`, for more boxes than any picture has; `unsupported_mode`, for signed samples, channels in
            an order of their own, and colours of more than 8 bits, whose white Pillow rounds to 256 and stores as 0.
    """
    colours = list(_colours(data))
    image = Jpeg2KImageFile(BytesIO(data))
    depths = _depths(data)
    if any(depth & 0x80 for depth in depths):
        raise DecodeError("unsupported_mode", "JPEG 2000: signed samples.")
    if max(depths) >= 8 and image.mode != "I;16":
        bits = f"colours of {max(depths) + 1} bits, whose white Pillow makes black"
        raise DecodeError("unsupported_mode", f"JPEG 2000: {bits}; convert it to a PNG or TIFF of 16 bits.")
    if not _has_channels_in_order(data):
        raise DecodeError("unsupported_mode", "JPEG 2000: channels that are not colours in order and then opacity.")
    for method, body in colours:
        if method in _ICC_METHODS:
            image.info["icc_profile"] = body
    return image


def load_jpeg2000(image: ImageFile, data: bytes, reopen: Callable[[], ImageFile]) -> np.ndarray | Image.Image:
    """Loads a JPEG 2000 with white as white: Pillow shifts other depths than 8 and 16 bits up, with zeros below."""
    stored = load_samples(image, data, reopen)
    bits = jpeg2000_bits(image, data)
    full = 16 if image.mode == "I;16" else 8
    if bits < full and image.mode in ("L", "RGB", "I;16"):
        return scaled(np.asarray(stored) >> (full - bits), 2**bits - 1)
    return stored


def check_jpeg2000(_: ImageFile, data: bytes, reopen: Callable[[], ImageFile]) -> None:
    """Finds missing tiles, which OpenJPEG leaves black. Layout: ITU-T T.800, A.4.2 and A.5.1.

    Raises:
        DecodeError: `truncated`, or `corrupt` for more parts of tiles than any picture has.
    """
    at = data.index(_CODESTREAM)
    right, below, _, _, width, height, left, top = struct.unpack_from(">8I", data, at + 8)
    tiles = -(-(right - left) // width) * -(-(below - top) // height)
    found: Counter[int] = Counter()
    stated: dict[int, int] = {}
    at += 2
    while data[at : at + 2] not in (_TILE_PART, b""):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while data[at : at + 2] == _TILE_PART and at + 12 <= len(data):
        tile, length, _, parts = struct.unpack_from(">HIBB", data, at + 4)
        found[tile] += 1
        stated[tile] = max(parts, stated.get(tile, 1))
        if found.total() > _MOST_TILE_PARTS:
            raise DecodeError("corrupt", f"JPEG 2000: more than {_MOST_TILE_PARTS} parts of tiles.")
        # Without a length it is the last part.
        at += length or len(data)
    lacking = tiles - len(found) + sum(found[tile] < parts for tile, parts in stated.items())
    if lacking > 0:
        raise DecodeError("truncated", f"JPEG 2000: {lacking} of {tiles} tiles are not in the file, or in part.")


def jpeg2000_bits(_: ImageFile, data: bytes) -> int:
    """Most bits per channel."""
    return max(depth & 0x7F for depth in _depths(data)) + 1


def jpeg2000_notes(_: ImageFile, data: bytes) -> tuple[str, ...]:
    """`color_space` if the colours are not sRGB's (a profile is judged elsewhere)."""
    spaces = [int.from_bytes(body[:4], "big") for method, body in _colours(data) if method == 1]
    return ("color_space",) if set(spaces) - _KNOWN_SPACES else ()


def _depths(data: bytes) -> bytes:
    """Bits less one of each component, and 128 if it is signed, from the codestream's header (ITU-T T.800, A.5.1)."""
    at = data.index(_CODESTREAM)
    (components,) = struct.unpack_from(">H", data, at + 40)
    return data[at + 42 : at + 42 + 3 * components : 3]


def _colours(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Method of each colour specification, and what it says."""
    for body in _header_boxes(data, b"colr"):
        yield body[0], body[3:]


def _has_channels_in_order(data: bytes) -> bool:
    """Tells whether the channels are what Pillow takes them for (ITU-T T.800, I.5.3.6)."""
    return all(
        any(set(struct.iter_unpack(">HHH", body[2:])) <= known for known in _CHANNELS)
        for body in _header_boxes(data, b"cdef")
    )


def _header_boxes(data: bytes, kind: bytes) -> Iterator[bytes]:
    if not data.startswith(_CODESTREAM):
        for header in inside(data, b"jp2h"):
            yield from inside(header, kind)
