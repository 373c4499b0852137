"""PNG: only the chunks that matter, however large the others; colour keys, colour spaces and 16 bits."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO

from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, PngImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.missing_pixels import OnBackground

# The chunks that Pillow gets to see: pixels, frames, and those that describe their colours and orientation.
_KEPT = frozenset(b"IHDR PLTE tRNS IDAT IEND acTL fcTL fdAT eXIf iCCP gAMA cHRM sRGB cICP".split())
# Those that have no meaning behind the first pixels: PNG specification, 5.6.
_BEFORE_PIXELS = frozenset(b"PLTE tRNS iCCP gAMA cHRM sRGB cICP acTL".split())
# Those without which no pixel has a meaning; another one of such a name, with a capital, must be understood.
_CRITICAL = frozenset(b"IHDR PLTE IDAT IEND".split())
_GRAY, _COLOUR, _PALETTE = 0, 2, 3
_END_OF_HEADER = 33
# Bytes that Pillow unpacks of a chunk, however short it is; of the transparent colour, by type.
_LEAST_BYTES = {b"gAMA": 4, b"sRGB": 1, b"cHRM": 32}
_COLOUR_KEY_BYTES = {_GRAY: 2, _COLOUR: 6}
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_XMP = b"XML:com.adobe.xmp"
# ImageMagick's text chunks of metadata in hexadecimal digits.
_RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_RAW_XMP = b"Raw profile type xmp"
_MAX_TEXT_BYTES = 2**24
# Writers make chunks of 8 KiB or more of pixels; walking more of them takes long.
_MOST_CHUNKS = 100_000
_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.05
SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
# Primaries and transfer functions of ITU-T H.273 that are sRGB's, or take it for granted.
SRGB_CODES = (frozenset({1, 2}), frozenset({1, 2, 6, 13, 14, 15}))


class PngFile(OnBackground, PngImageFile):
    """A PNG on a background."""


def open_png(data: bytes) -> ImageFile:
    """Opens a PNG without the chunks that neither its pixels nor their meaning depend on.

    Pillow refuses a file for large texts, and puts any text into `info` by the name that the text gives itself. It
    checks the sums of all chunks but those of the pixels.

    Raises:
        DecodeError: `corrupt` for damaged pixels, no palette, or more chunks than any picture has; `unsupported_mode`
            for a chunk that must be understood, or methods of compression and filtering, that no PNG has.
    """
    _check_header(data)
    kept, texts, cut, pixels_began = [], {}, 8, False
    for number, (kind, start, end) in enumerate(_chunks(data)):
        if number == _MOST_CHUNKS:
            raise DecodeError("corrupt", f"PNG: more than {_MOST_CHUNKS} chunks.")
        _check_chunk(data, kind, start, end)
        pixels_began |= kind == b"IDAT"
        if kind in _TEXTS:
            key = bytes(data[start : min(start + 80, end)]).partition(b"\0")[0]
            if key in (_XMP, _RAW_XMP, *_RAW_EXIF):
                texts[key] = _text(kind, data[start + len(key) + 1 : end])
        replaced = kind == b"iCCP" and not _is_readable_profile(data[start:end])
        if kind not in _KEPT or replaced or (pixels_began and kind in _BEFORE_PIXELS):
            kept.append(data[cut : start - 8])
            kept += [_UNREADABLE_PROFILE] if replaced and not pixels_began else []
            cut = end + 4
    image = PngFile(BytesIO(b"".join((data[:8], *kept, data[cut:])) if kept else data))
    if data[25] == _PALETTE and image.palette is None:
        raise DecodeError("corrupt", "PNG: palette indices without a palette before them.")
    exif = next((texts[key] for key in _RAW_EXIF if key in texts), None)
    if exif is not None:
        image.info.setdefault("exif", _from_hexadecimal(exif))
    if _XMP in texts:
        image.info["xmp"] = texts[_XMP]
    elif _RAW_XMP in texts:
        image.info["xmp"] = _from_hexadecimal(texts[_RAW_XMP])
    _scale_colour_key(image, data[24])
    _keep_bytes_apart(image)
    return image


def _check_header(data: bytes) -> None:
    if data[12:16] != b"IHDR" or len(data) < _END_OF_HEADER:
        reason = "corrupt" if b"IHDR" in data[16:] else "truncated"
        raise DecodeError(reason, "PNG: it does not begin with a header.")
    if any(data[26:28]):
        raise DecodeError("unsupported_mode", f"PNG: compression {data[26]} and filter {data[27]}, where 0 is defined.")


def _check_chunk(data: bytes, kind: bytes, start: int, end: int) -> None:
    """Raises DecodeError for a chunk that Pillow takes for sound, for another one, or for the end of the file."""
    view = memoryview(data)
    if kind == b"IDAT" and zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
        raise DecodeError("corrupt", "PNG: a chunk of pixels does not have the checksum that it states.")
    if end - start < (_COLOUR_KEY_BYTES.get(data[25], 0) if kind == b"tRNS" else _LEAST_BYTES.get(kind, 0)):
        raise DecodeError("corrupt", f"PNG: a chunk {kind!r} of {end - start} bytes.")
    if kind[:1].isupper() and kind not in _CRITICAL:
        raise DecodeError("unsupported_mode", f"PNG: pixels that depend on a chunk {kind!r}.")


def png_bits(_: ImageFile, data: bytes) -> int:
    """Bits per channel, from the header."""
    return data[24]


def png_notes(image: ImageFile, data: bytes) -> tuple[str, ...]:
    """`color_space` if cICP, or without it gAMA and cHRM, describe colours that are not sRGB's.

    A profile and an sRGB chunk take precedence over gAMA and cHRM: PNG specification, third edition, 4.3.
    """
    for kind, start, _ in _chunks(data):
        if kind == b"cICP":
            primaries, transfers = SRGB_CODES
            primary, transfer, matrix, full_range = data[start : start + 4]
            same = primary in primaries and transfer in transfers and matrix == 0 and full_range == 1
            return () if same else ("color_space",)
        if kind == b"IDAT":
            break
    if "icc_profile" in image.info or "srgb" in image.info:
        return ()
    gamma, primaries = image.info.get("gamma", _GAMMA), image.info.get("chromaticity", SRGB_PRIMARIES)
    same = abs(gamma / _GAMMA - 1) <= _GAMMA_TOLERANCE and are_srgb_primaries(primaries)
    return () if same else ("color_space",)


def are_srgb_primaries(chromaticities: Sequence[float]) -> bool:
    """Tells whether x and y of white, red, green and blue are sRGB's."""
    return len(chromaticities) == len(SRGB_PRIMARIES) and all(
        abs(found - known) <= 0.005 for found, known in zip(chromaticities, SRGB_PRIMARIES, strict=True)
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the body of each chunk, up to the last one or where the file makes no sense."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        yield kind, at + 8, at + 8 + length
        if kind == b"IEND":
            return
        at += 12 + length


def _text(kind: bytes, body: bytes) -> bytes:
    """The text in the body of a chunk behind its key; empty if it cannot be read."""
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        body = body[1:]
    elif kind == b"iTXt":
        compressed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(body, _MAX_TEXT_BYTES) if compressed else body
    except zlib.error:
        return b""


def _from_hexadecimal(text: bytes) -> bytes:
    """The bytes in a text of three lines (empty, name, length) and digits; empty if it cannot be read."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _is_readable_profile(body: bytes) -> bool:
    """Tells whether Pillow takes an iCCP chunk: it refuses the whole file for a large one."""
    _, _, rest = body.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(rest[1:], MAX_TEXT_CHUNK + 1)
    except zlib.error:
        return False
    return rest[:1] == b"\0" and len(profile) <= MAX_TEXT_CHUNK


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_UNREADABLE_PROFILE = _chunk(b"iCCP", b"unreadable\0\0" + zlib.compress(b""))


def _scale_colour_key(image: ImageFile, depth: int) -> None:
    """Brings the transparent gray or colour to the scale of the pixels, which Pillow forgets below 8 bits.

    Only the low bits of a key count: PNG specification, 11.3.1.1.
    """
    key = image.info.get("transparency")
    most = (1 << depth) - 1
    if image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = (key & most) * 255 // most
    elif image.mode == "RGB" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value & most for value in key)


def _keep_bytes_apart(image: ImageFile) -> None:
    """Asks for the four bytes of 16-bit gray with alpha as if each were a channel."""
    image.info["gray_alpha_16"] = any(tile.args == "LA;16B" for tile in image.tile)
    image.tile = [tile._replace(args="RGBA") if tile.args == "LA;16B" else tile for tile in image.tile]
