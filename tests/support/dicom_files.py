"""DICOM files made by hand: explicit VR, little endian, of the elements that a picture needs."""

import struct
from collections.abc import Mapping

import numpy as np

NATIVE, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
JPEG, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"

_SECONDARY_CAPTURE = b"1.2.840.10008.5.1.4.1.1.7\0"
_LONG = ("OB", "OW", "SQ", "UN")
_PIXEL_DATA = 0x7FE0_0010


def element(tag: int, kind: str, value: bytes) -> bytes:
    """An element of the data set (PS3.5, 7.1.2); the value is padded to an even length."""
    value += bytes(len(value) % 2) if kind in (*_LONG, "UI") else b" " * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, kind.encode())
    return head + struct.pack("<2xI" if kind in _LONG else "<H", len(value)) + value


def dicom(
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    photometric: str = "",
    frames: int | None = None,
    more: Mapping[int, tuple[str, str]] = {},
    raw: Mapping[int, bytes] = {},
    encoded: bytes | None = None,
    syntax: str = NATIVE,
    shape: tuple[int, int] | None = None,
) -> bytes:
    """A DICOM file.

    Args:
        pixels: [H, W], [H, W, 3], or with frames [F, H, W] or [F, H, W, 3]; integers of 8 or 16 bits.
        bits: used of each sample; all of them by default.
        photometric: `MONOCHROME2` or `RGB` by default, as the shape tells.
        frames: in the header, and in `pixels`.
        more: elements of text, by tag: their VR and value.
        raw: elements as they are in the file, by tag.
        encoded: the one frame as an image file of the transfer syntax.
        syntax: the transfer syntax.
        shape: height and width in the header, where they are to lie.
    """
    rgb = pixels.shape[-1] == 3
    height, width = shape or pixels.shape[1 if frames else 0 :][:2]
    size = pixels.dtype.itemsize * 8
    numbers = {
        0x0028_0002: 3 if rgb else 1,
        **({0x0028_0006: 0} if rgb else {}),
        0x0028_0010: height,
        0x0028_0011: width,
        0x0028_0100: size,
        0x0028_0101: bits or size,
        0x0028_0102: (bits or size) - 1,
        0x0028_0103: int(pixels.dtype.kind == "i"),
    }
    elements = {tag: element(tag, "US", struct.pack("<H", value)) for tag, value in numbers.items()}
    elements[0x0008_0016] = element(0x0008_0016, "UI", _SECONDARY_CAPTURE)
    elements[0x0028_0004] = element(0x0028_0004, "CS", (photometric or ("RGB" if rgb else "MONOCHROME2")).encode())
    if frames:
        elements[0x0028_0008] = element(0x0028_0008, "IS", str(frames).encode())
    elements |= {tag: element(tag, kind, text.encode()) for tag, (kind, text) in more.items()} | raw
    if encoded is None:
        kind = "OB" if size == 8 else "OW"
        elements[_PIXEL_DATA] = element(_PIXEL_DATA, kind, pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    else:
        elements[_PIXEL_DATA] = _fragments(encoded)
    return file_of(b"".join(elements[tag] for tag in sorted(elements)), syntax)


def file_of(data_set: bytes, syntax: str = NATIVE) -> bytes:
    """A file of an encoded data set (PS3.10, 7.1)."""
    meta = (
        element(0x0002_0001, "OB", b"\0\1")
        + element(0x0002_0002, "UI", _SECONDARY_CAPTURE)
        + element(0x0002_0003, "UI", b"1.2.3.4")
        + element(0x0002_0010, "UI", syntax.encode())
        + element(0x0002_0012, "UI", b"1.2.3")
    )
    return bytes(128) + b"DICM" + element(0x0002_0000, "UL", struct.pack("<I", len(meta))) + meta + data_set


def _fragments(frame: bytes) -> bytes:
    """Pixel data of one frame in one fragment, behind an empty table of offsets (PS3.5, A.4)."""
    item = struct.Struct("<HHI")
    frame += bytes(len(frame) % 2)
    return (
        struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
        + item.pack(0xFFFE, 0xE000, 0)
        + item.pack(0xFFFE, 0xE000, len(frame))
        + frame
        + item.pack(0xFFFE, 0xE0DD, 0)
    )
