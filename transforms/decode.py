"""Encoded images to pixels: untrusted bytes in, RGB arrays and notes out, or one `DecodeError` with its reason.

Pillow decodes everything, because its pixels are the ones every peer sees. It is told which format to expect,
by magic bytes and an allow-list; it never guesses. Three things it lets through are caught here: a JPEG whose
data ends early but has an end marker (filled with mid-gray), missing rows of a PNG or TIFF (filled with zeros),
and metadata made to use up the memory.
"""

import logging
import re
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

REASONS = {
    "null_image": "the record holds no image",
    "empty_bytes": "the image has no bytes",
    "too_many_bytes": "more encoded bytes than `max_image_bytes`",
    "unknown_format": "the first bytes belong to no known image format",
    "unsupported_format": "a known format that is not decoded here; the message names it",
    "zero_size": "the header gives no width, no height or no pixel type",
    "too_many_pixels": "the header claims more pixels than `max_image_pixels`",
    "unsupported_mode": "pixels without an agreed white (float, signed, 12 or 32 bit, LAB), or a rare layout",
    "truncated": "the data ends before the pixels do, or a forged header claims more pixels than there are",
    "corrupt": "the data breaks the rules of its format",
    "out_of_memory": "decoding asked for more memory than there is",
    "size_mismatch": "the two images of the pair differ in size and the policy is `fail`",
}
NOTES = {
    "animated": "several frames or pages; the first was taken",
    "exif_rotated": "the EXIF orientation was applied",
    "exif_unreadable": "damaged EXIF; no orientation was applied",
    "icc_profile": "an ICC profile that does not call itself sRGB was NOT applied",
    "palette": "palette indices were looked up",
    "gray": "one gray channel was copied to three",
    "cmyk": "CMYK was converted by Pillow's plain formula, without a profile",
    "alpha": "transparency was composited on white (an opaque alpha channel goes without a note)",
    "16bit": "16 bits per channel, kept",
    "16bit_reduced": "16 bits per channel, of which Pillow keeps the upper 8",
    "constant": "every pixel is the same",
    "resized_from_WxH": "resized to the target's size (policy `resize`)",
    "cropped_from_WxH": "cropped to the centre, to the common size (policy `crop`)",
}
SIZE_POLICIES = ("fail", "resize", "crop")


@dataclass(frozen=True)
class DecodePolicy:
    """What is decoded, and what happens to pairs of two sizes.

    Attributes:
        max_image_pixels: largest width * height, checked in the header. TIFF and GIF never go beyond Pillow's
            own limit (179 million).
        max_image_bytes: most encoded bytes.
        size_mismatch: `fail`, `resize` (generated to target, bicubic) or `crop` (both, to the common centre).

    Raises:
        ValueError: for a limit below 1 or an unknown policy.
    """

    max_image_pixels: int = 2**23
    max_image_bytes: int = 64 * 2**20
    size_mismatch: str = "fail"

    def __post_init__(self) -> None:
        for limit in (self.max_image_pixels, self.max_image_bytes):
            if limit < 1:
                raise ValueError(f"image limits must be at least 1, not {limit}")
        if self.size_mismatch not in SIZE_POLICIES:
            allowed = ", ".join(SIZE_POLICIES)
            raise ValueError(f"size_mismatch must be one of {allowed}, not {self.size_mismatch!r}")


class DecodeError(Exception):
    """An image, or a pair, that cannot be used.

    Attributes:
        reason: a key of `REASONS`.
        message: one sentence for people.
        image: `generated`, `target` or `pair`; empty when raised by `decode_image`.
    """

    def __init__(self, reason: str, message: str, image: str = "") -> None:
        super().__init__(reason, message, image)
        self.reason = reason
        self.message = message
        self.image = image

    def __str__(self) -> str:
        return f"{self.image} {self.reason}: {self.message}".lstrip()


@dataclass(frozen=True)
class DecodedImage:
    """One image.

    Attributes:
        pixels: [H, W, 3] RGB, uint8 in [0, 255] or uint16 in [0, 65535], C-contiguous, perhaps read-only.
        notes: keys of `NOTES`.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedPair:
    """Two images of one shape and one dtype.

    Attributes:
        generated: as `DecodedImage.pixels`.
        target: as `DecodedImage.pixels`.
        notes: keys of `NOTES` behind the image's name: `generated:gray`.
    """

    generated: np.ndarray
    target: np.ndarray
    notes: tuple[str, ...] = ()


def decode_pair(generated: bytes | None, target: bytes | None, policy: DecodePolicy) -> DecodedPair:
    """Decodes both images of a pair and brings them to one dtype and one size.

    Next to a uint16 image a uint8 one is multiplied by 257, which keeps its values in [0, 1] as they are.

    Raises:
        DecodeError: with `image` saying which image is to blame.
    """
    first = _decode_member("generated", generated, policy)
    second = _decode_member("target", target, policy)
    notes = tuple(f"generated:{note}" for note in first.notes) + tuple(f"target:{note}" for note in second.notes)
    a, b = first.pixels, second.pixels
    if a.dtype != b.dtype:
        a, b = _widened(a), _widened(b)
    if a.shape != b.shape:
        a, b, fit_notes = _fitted(a, b, policy.size_mismatch)
        notes += fit_notes
    return DecodedPair(a, b, notes)


def decode_image(data: bytes | None, policy: DecodePolicy) -> DecodedImage:
    """Decodes one image. Safe to call from many threads.

    Raises:
        DecodeError: for everything that is not an image within the limits; nothing else is raised.
    """
    if data is None:
        raise DecodeError("null_image", "The record holds no image.")
    if not data:
        raise DecodeError("empty_bytes", "The image has no bytes.")
    if len(data) > policy.max_image_bytes:
        limit = policy.max_image_bytes
        raise DecodeError("too_many_bytes", f"{len(data)} bytes; max_image_bytes is {limit}.")
    name = _sniff(data)
    _silence_pillow()
    try:
        return _decode(name, data, policy)
    except DecodeError:
        raise
    except Exception as error:
        # Pillow raises nearly anything on hostile bytes, and one bad record must not end a run.
        raise DecodeError(_meaning(error), f"{name}: {type(error).__name__}: {error}") from error


def _decode_member(member: str, data: bytes | None, policy: DecodePolicy) -> DecodedImage:
    try:
        return decode_image(data, policy)
    except DecodeError as error:
        raise DecodeError(error.reason, error.message, member) from error


def _decode(name: str, data: bytes, policy: DecodePolicy) -> DecodedImage:
    """Decodes data of a known format. Raises DecodeError, or whatever Pillow raises."""
    if name == "WebP":
        _check_webp(data, policy)
    elif name == "TIFF":
        _check_tiff(data)
    stream = BytesIO(data)
    image = PLUGINS[name](stream)
    _check_pixels(*image.size, policy)
    _check_mode(image)
    notes = []
    # Asked before loading: a GIF finds out by reading on, and forgets its pixels.
    if getattr(image, "is_animated", False):
        notes.append("animated")
    position = stream.tell()
    image.load()
    _check_complete(image, name, data, position)
    if _has_foreign_profile(image):
        notes.append("icc_profile")
    upright = _upright(image, notes)
    if image.mode.startswith("I;16"):
        pixels = _gray16(upright, notes)
    else:
        if _sample_bits(image, data) == 16:
            notes.append("16bit_reduced")
        pixels = np.asarray(_rgb(upright, notes))
    corner = pixels[0, 0]
    if (pixels[0] == corner).all() and (pixels == corner).all():
        notes.append("constant")
    return DecodedImage(pixels, tuple(notes))


# ---- What the bytes are, and what Pillow means ----


class _JpegFile(JpegImageFile):
    """A JPEG whose EXIF block Pillow leaves alone: it would read every tag, just for the resolution."""

    def _open(self) -> None:
        self.info["dpi"] = (72, 72)
        super()._open()


class _TiffFile(TiffImageFile):
    """A TIFF that Pillow neither turns (`_upright` does, with a note) nor reads sub-directories of."""

    def load_end(self) -> None:
        """Leave the pixels as they are stored."""


PLUGINS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": _JpegFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": _TiffFile,
    "GIF": GifImageFile,
}
# First bytes of each format, tried in order; those without a plugin are refused by name.
MAGIC = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WebP": rb"RIFF.{4}WEBPVP8[ LX]",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II\*\0|MM\0\*",
    "BMP": rb"BM.{12}.\0\0\0",  # with the length of the header, for "BM" begins many a text
    "BigTIFF": rb"II\+\0|MM\0\+",
    "JPEG XR": rb"II\xbc",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(?:he[ivx]|mif1|msf1)",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?RAD",
    "PDF": rb"%PDF-",
    "Photoshop": rb"8BPS",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
    "ICO": rb"\0\0\x01\0",
    "PNM": rb"P[1-7]\s",
    "NumPy": rb"\x93NUMPY",
    "SVG": rb"(?:\xef\xbb\xbf)?\s*(?:<[?!].*)?<svg",
}
_MAGIC = {name: re.compile(pattern, re.DOTALL) for name, pattern in MAGIC.items()}
_SNIFFED_BYTES = 1024

# What Pillow says, and what it means; everything else is `corrupt`.
_MEANINGS = {
    "not identified by this driver": "zero_size",
    "unknown pixel mode": "unsupported_mode",
    "unknown data organization": "unsupported_mode",
    "cannot handle": "unsupported_mode",
    "unsupported bmp": "unsupported_mode",
    "truncat": "truncated",
    "not enough image data": "truncated",
}

# Pillow reports oddities of hostile files as log lines and warnings; here they are notes and failures.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_PILLOW_MODULES = r"PIL\."
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(_PILLOW_MODULES), 0)


def _sniff(data: bytes) -> str:
    """Name of the format, a key of `PLUGINS`, by the first bytes."""
    head = data[:_SNIFFED_BYTES]
    for name, magic in _MAGIC.items():
        if magic.match(head):
            if name not in PLUGINS:
                raise DecodeError("unsupported_format", f"{name} is not decoded; use {', '.join(PLUGINS)}.")
            return name
    raise DecodeError("unknown_format", f"No image format begins with {head[:8]!r}.")


def _silence_pillow() -> None:
    """Ignores warnings out of Pillow, in the whole process: `catch_warnings` would not be safe among threads.

    Called for every image, because whoever sets other filters may come later.
    """
    if warnings.filters[:1] != [_PILLOW_FILTER]:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


def _meaning(error: Exception) -> str:
    """Reason of an exception out of Pillow, which wraps what its parsers raise in SyntaxError."""
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels"
    if isinstance(error, MemoryError):
        return "out_of_memory"
    message = str(error).lower()
    for words, reason in _MEANINGS.items():
        if words in message:
            return reason
    ran_out = isinstance(error.__cause__ or error, EOFError | IndexError | struct.error)
    return "truncated" if ran_out else "corrupt"


# ---- Checks of what Pillow lets through ----

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _BLACK_IS_ZERO = 274, 258, 262, 1
# Bytes per value of the TIFF field types. Bytes may be many (profiles, XMP), tables of numbers are short.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_MAX_TABLE_BYTES = 2**20

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"})
_GRAY_MODES = frozenset({"1", "L", "LA"})
_SCAN_END = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")
# Entropy-coded rubbish: bits for a few blocks, then the same behind every restart marker.
_RUBBISH = bytes(range(17, 81)) + b"".join(bytes((0xFF, 0xD0 + n, *range(33, 49))) for n in range(8))


def _check_pixels(width: int, height: int, policy: DecodePolicy) -> None:
    if width * height > policy.max_image_pixels:
        limit = policy.max_image_pixels
        message = f"The header claims {width}x{height} pixels; max_image_pixels is {limit}."
        raise DecodeError("too_many_pixels", message)


def _check_webp(data: bytes, policy: DecodePolicy) -> None:
    """Checks the header before Pillow opens the file, for that alone allocates two canvases.

    Layout: RFC 9649, sections 2.5 to 2.7.
    """
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise DecodeError("truncated", f"WebP: {len(data)} bytes are fewer than the header claims.")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_pixels(width, height, policy)


def _check_tiff(data: bytes) -> None:
    """Refuses tags that claim more bytes than the file has: Pillow copies each tag's, overlapping or not."""
    sizes = [(kind, _TYPE_SIZES.get(kind, 0) * count) for _, kind, count, _ in _directory(data)]
    tables = sum(size for kind, size in sizes if kind not in _BYTE_TYPES)
    if sum(size for _, size in sizes) > len(data) or tables > _MAX_TABLE_BYTES:
        raise DecodeError("corrupt", f"TIFF: the tags claim more bytes than fit in a file of {len(data)}.")


def _directory(tiff: bytes) -> list[tuple[int, int, int, int]]:
    """Entries of the first directory: tag, type, count, and the value where it is one 16-bit number.

    Raises:
        struct.error: where the data ends too early.
    """
    order = "<" if tiff.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    (table,) = struct.unpack_from(f"{12 * entries}s", tiff, start + 2)
    return list(struct.iter_unpack(order + "HHIH2x", table))


def _check_mode(image: ImageFile) -> None:
    """Refuses pixels for which no value is the agreed white."""
    usable = image.mode in _MODES
    if usable and isinstance(image, TiffImageFile) and image.mode.startswith("I;16"):
        # Pillow reads 12 bits into the same mode unscaled, and does not invert a white that is zero.
        layout = (image.tag_v2.get(_BITS_PER_SAMPLE), image.tag_v2.get(_PHOTOMETRIC))
        usable = layout == ((16,), _BLACK_IS_ZERO)
    if not usable:
        raise DecodeError("unsupported_mode", f"{image.format} with pixels of Pillow's mode {image.mode!r}.")


def _check_complete(image: ImageFile, name: str, data: bytes, position: int) -> None:
    """Fails where Pillow filled missing pixels instead of raising.

    Only an image that ends in the fill is looked at twice: it is decoded again with something else in place
    of the missing pixels. If that shows, pixels are missing. `position`: where a JPEG's first scan begins.
    """
    if name == "JPEG" and _ends_gray(image):
        scan_end = _SCAN_END.search(data, position)
        end = scan_end.start() if scan_end else len(data)
        again = PLUGINS[name](BytesIO(data[:end] + _RUBBISH + data[end:]))
    elif name in ("PNG", "TIFF") and image.getbbox(alpha_only=False) != (0, 0, *image.im.size):
        again = PLUGINS[name](BytesIO(data))
        again.im = Image.new(image.mode, image.im.size, 1).im
    else:
        return
    again.load()
    if again.tobytes() != image.tobytes():
        size = f"{image.width}x{image.height}"
        raise DecodeError("truncated", f"{name}: fewer pixels than the {size} of the header.")


def _ends_gray(image: ImageFile) -> bool:
    """Whether the last 8x8 block is mid-gray: so libjpeg leaves blocks without data, and only warns."""
    width, height = image.size
    tail = image.crop(((width - 1) // 8 * 8, (height - 1) // 8 * 8, width, height))
    return not tail.tobytes().strip(b"\x7f\x80")


# ---- From Pillow's modes to RGB ----

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: ImageFile, notes: list[str]) -> Image.Image:
    """The image turned as its EXIF orientation (TIFF: its own tag) says.

    Read here, not with `getexif`, which loads every tag, however large, and is slow on photographs.
    """
    orientation = 1
    if isinstance(image, TiffImageFile):
        orientation = image.tag_v2.get(_ORIENTATION, 1)
    elif exif := image.info.get("exif"):
        try:
            entries = _directory(exif.removeprefix(b"Exif\0\0"))
        except struct.error:
            notes.append("exif_unreadable")
        else:
            orientation = next((value for tag, _, _, value in entries if tag == _ORIENTATION), 1)
    if orientation not in _TURNS:
        return image
    notes.append("exif_rotated")
    return image.transpose(_TURNS[orientation])


def _has_foreign_profile(image: ImageFile) -> bool:
    """Whether there is an ICC profile whose description (tag `desc` of ICC.1:2022) lacks the word sRGB."""
    profile = image.info.get("icc_profile")
    if not profile:
        return False
    tags = profile[132 : 132 + 12 * int.from_bytes(profile[128:132], "big")]
    for at in range(0, len(tags) - 11, 12):
        if tags[at : at + 4] == b"desc":
            start, size = struct.unpack_from(">II", tags, at + 4)
            # Version 4 writes UTF-16, version 2 ASCII.
            return b"srgb" not in profile[start : start + size].replace(b"\0", b"").lower()
    return True


def _sample_bits(image: ImageFile, data: bytes) -> int:
    """Bits per channel in the file, where that can be more than 8."""
    if isinstance(image, PngImageFile):
        return data[24]
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    return 8


def _gray16(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Pixels of a 16-bit gray image, [H, W, 3] uint16 in the machine's byte order."""
    notes += ["16bit", "gray"]
    gray = np.asarray(image).astype(np.uint16)
    clear = image.info.get("transparency")
    if clear is not None and (gray == clear).any():
        notes.append("alpha")
        gray[gray == clear] = 65535
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image in mode RGB."""
    if image.mode in _GRAY_MODES:
        notes.append("gray")
    elif image.mode in ("P", "PA"):
        notes.append("palette")
    elif image.mode == "CMYK":
        notes.append("cmyk")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"), notes)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(rgba: Image.Image, notes: list[str]) -> Image.Image:
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    notes.append("alpha")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=alpha)
    return white


# ---- Two images, one size ----


def _widened(pixels: np.ndarray) -> np.ndarray:
    """The pixels as uint16; 255 becomes 65535."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def _fitted(generated: np.ndarray, target: np.ndarray, policy: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Both arrays at one size, and a note for each that changed.

    Raises:
        DecodeError: for the policy `fail`.
    """
    sizes = {"generated": _size(generated), "target": _size(target)}
    if policy == "fail":
        message = f"generated is {sizes['generated']}, target is {sizes['target']}; see size_mismatch."
        raise DecodeError("size_mismatch", message, "pair")
    if policy == "resize":
        height, width = target.shape[:2]
        return _resized(generated, width, height), target, (f"generated:resized_from_{sizes['generated']}",)
    height, width = np.minimum(generated.shape, target.shape)[:2]
    common = f"{width}x{height}"
    notes = tuple(f"{name}:cropped_from_{size}" for name, size in sizes.items() if size != common)
    return _cropped(generated, width, height), _cropped(target, width, height), notes


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pillow's bicubic, with antialiasing. It resizes no 16-bit RGB, so uint16 goes by channels of floats."""

    def bicubic(array: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC))

    if pixels.dtype == np.uint8:
        return bicubic(pixels)
    channels = [bicubic(pixels[:, :, c].astype(np.float32)) for c in range(3)]
    return np.stack(channels, axis=2).round().clip(0, 65535).astype(np.uint16)


def _cropped(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The centre of the pixels; of an odd rest the larger half is cut below and on the right."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
