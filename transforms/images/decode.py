"""Encoded images to pixels: untrusted bytes in, RGB arrays and notes out, or one `DecodeError` with its reason.

The pixels are Pillow's, because these are the ones every peer sees.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transforms.images.arrays import LAYOUTS, RANGES, decode_array, is_array
from transforms.images.decode_error import DecodeError
from transforms.images.formats import sniff
from transforms.images.image_files import load_image
from transforms.images.rgb import to_rgb
from transforms.settings import setting

__all__ = [
    "BACKGROUNDS",
    "COLOR_POLICIES",
    "NOTES",
    "REASONS",
    "SIZE_POLICIES",
    "DecodeError",
    "DecodePolicy",
    "DecodedImage",
    "DecodedPair",
    "check_length",
    "counted_pixels",
    "decode_image",
    "decode_pair",
]

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
    "undeclared_range": "an array, whose range of values must be declared by `range`",
    "outside_range": "the array has values outside the declared `range`, or NaN",
    "size_mismatch": "the two images of the pair differ in size and the policy is `fail`",
    "mask_mismatch": "the mask has not the size of the target",
}
NOTES = {
    "animated": "several frames or pages; the first was taken",
    "color_space": "colours that are not sRGB's by PNG's gAMA, cHRM or cICP or the container; NOT converted",
    "unchecked": "lossless or arithmetic-coded JPEG, JPEG-LS, fax or old JPEG in a TIFF: damage would not be noticed",
    "icc_profile": "an ICC profile whose colours differ from sRGB's was NOT applied (see the policy `color`)",
    "icc_converted": "an ICC profile was applied, at 8 bits (policy `convert`)",
    "exif_unreadable": "damaged EXIF; it turned nothing",
    "exif_rotated": "the orientation of EXIF, XMP or TIFF was applied",
    "16bit": "16 bits per channel, kept",
    "bits_reduced": "more than 8 bits per channel, of which the upper 8 were kept",
    "palette": "palette indices were looked up",
    "gray": "one gray channel was copied to three",
    "cmyk": "CMYK was converted by Pillow's plain formula, without a profile",
    "alpha": "transparency was composited on the background (an opaque alpha channel goes without a note)",
    "alpha_ignored": "an alpha channel of zeros in a format whose writers often leave it so; it was left out",
    "inverted": "DICOM with zero for white (MONOCHROME1); the values were inverted",
    "stored_values": "DICOM with a rescale, a window or a table for display, none of which was applied",
    "constant": "every pixel is the same",
    "other_range": "the values of the array would fit a narrower `range`, too; were they declared rightly?",
    "resized_from_WxH": "resized to the target's size (policy `resize`)",
    "cropped_from_WxH": "cropped to the centre, to the common size (policy `crop`)",
}
SIZE_POLICIES = ("fail", "resize", "crop")
COLOR_POLICIES = ("keep", "convert")
SPLITS = ("none", "horizontal", "vertical")
BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}

# Words in the messages of Pillow, and the reasons they stand for; everything else is `corrupt`.
_MEANINGS = {
    "not identified by this driver": "zero_size",
    "unknown pixel mode": "unsupported_mode",
    "unknown data organization": "unsupported_mode",
    "raw mode": "unsupported_mode",
    "cannot handle": "unsupported_mode",
    "unsupported bmp": "unsupported_mode",
    "truncat": "truncated",
    "not enough image data": "truncated",
    # Pillow's code for a C library's lack of memory.
    "decoder error -9": "out_of_memory",
}


@dataclass(frozen=True)
class DecodePolicy:
    """Which images are decoded, and how they are converted.

    Attributes:
        max_image_pixels: largest width * height, checked in the header. TIFF and GIF never go beyond Pillow's own
            limit (179 million).
        max_image_bytes: most encoded bytes.
        size_mismatch: `fail`, `resize` (generated to target, bicubic) or `crop` (both, to the common centre).
        background: what transparency is composited on: `white`, `black` or `#rrggbb`.
        color: `keep` the stored values, or `convert` them to sRGB by their ICC profile.
        range: of the values of arrays, a key of `RANGES`; empty: arrays fail.
        layout: order of the dimensions of arrays, `hwc` or `chw`.
        split: `horizontal` or `vertical` if one image holds both: the generated one on the left or above.

    Raises:
        ValueError: for a limit below 1 or an unknown policy.
    """

    max_image_pixels: int = setting(
        "larger images fail; a pair takes about 20 bytes of memory per pixel", 2**28, positive=True
    )
    max_image_bytes: int = setting("larger encoded images fail", 2**28, positive=True)
    size_mismatch: str = setting(
        "a pair of two sizes: fail, resize the generated image to its target, or crop both to what they share",
        "fail",
        choices=SIZE_POLICIES,
    )
    background: str = setting("what transparency is composited on: white, black or #rrggbb", "white", metavar="COLOR")
    color: str = setting(
        "keep the stored values, or convert them to sRGB by their ICC profile, at 8 bits",
        "keep",
        choices=COLOR_POLICIES,
    )
    range: str = setting(
        "of arrays (.npy, or numbers in records): what stands for black and white; it is never guessed",
        "",
        choices=("", *RANGES),
        metavar="|".join(RANGES),
    )
    layout: str = setting("order of the dimensions of arrays", "hwc", choices=LAYOUTS)
    split: str = setting(
        "one image holds both: horizontal, the generated one on the left and its target on the right, or vertical, the "
        "generated one above",
        "none",
        choices=SPLITS,
    )

    def __post_init__(self) -> None:
        for limit in (self.max_image_pixels, self.max_image_bytes):
            if limit < 1:
                raise ValueError(f"image limits must be at least 1, not {limit}")
        for name, allowed in (
            ("size_mismatch", SIZE_POLICIES),
            ("color", COLOR_POLICIES),
            ("split", SPLITS),
            ("layout", LAYOUTS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if self.background not in BACKGROUNDS and not re.fullmatch("#[0-9a-fA-F]{6}", self.background):
            raise ValueError(f"background must be white, black or #rrggbb, not {self.background!r}")

    @property
    def background_color(self) -> tuple[int, int, int]:
        """The background, as red, green and blue in [0, 255]."""
        if self.background in BACKGROUNDS:
            return BACKGROUNDS[self.background]
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue


@dataclass(frozen=True)
class DecodedImage:
    """One image.

    Attributes:
        pixels: [H, W, 3] RGB, uint8 in [0, 255], uint16 in [0, 65535] or, of an array, float32 in [0, 1]; C-contiguous,
            perhaps read-only.
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
        mask: the pixels that count, bool [H, W]; None: all.
    """

    generated: np.ndarray
    target: np.ndarray
    notes: tuple[str, ...] = ()
    mask: np.ndarray | None = None


def decode_pair(
    generated: bytes | None, target: bytes | None, policy: DecodePolicy, *masks: bytes | None
) -> DecodedPair:
    """Decodes both images of a pair, and perhaps its mask, and brings them to one dtype and one size.

    Next to a uint16 image a uint8 one is multiplied by 257, which keeps its values in [0, 1] as they are. Next to a
    float32 image every other one becomes float32.

    Raises:
        DecodeError: with `image` naming the image that failed.
    """
    (pair,) = decode_candidates([generated], target, policy, masks)
    if isinstance(pair, DecodeError):
        raise pair
    return pair


def decode_candidates(
    generated: Iterable[bytes | None], target: bytes | None, policy: DecodePolicy, masks: Sequence[bytes | None] = ()
) -> Iterator[DecodedPair | DecodeError]:
    """Decodes several generated images and, once, their target: per image what `decode_pair` returns or raises.

    With the policy `split` the target is the other half of its image. So is the generated one, if it is of the same
    file; a file of its own, such as an optimized one, is taken whole.

    Args:
        generated: of one target.
        target: as in `decode_pair`.
        policy: which images are decoded, and how they are converted.
        masks: the mask; empty: the target has none.
    """
    second: DecodedImage | DecodeError | None = None
    decoded = [_decoded(mask, "mask", policy) for mask in masks]
    for image in generated:
        try:
            first = _decode_member("generated", image, policy)
            if policy.split != "none" and target in (None, image):
                yield _pair(*_halves(first, policy.split), policy, *decoded)
                continue
            second = second or _decoded(target, "target", policy)
            if isinstance(second, DecodeError):
                raise second
            yield _pair(first, second, policy, *decoded)
        except DecodeError as error:
            yield error


def _decoded(data: bytes | None, member: str, policy: DecodePolicy) -> DecodedImage | DecodeError:
    try:
        found = _decode_member(member, data, policy)
        return _halves(found, policy.split)[1] if member == "target" and policy.split != "none" else found
    except DecodeError as error:
        return error


def _halves(both: DecodedImage, split: str) -> tuple[DecodedImage, DecodedImage]:
    axis = 1 if split == "horizontal" else 0
    side = both.pixels.shape[axis]
    if side % 2:
        raise DecodeError("size_mismatch", f"{_size(both.pixels)} cannot be split into two halves.", "generated")
    halves = np.split(both.pixels, 2, axis)
    return DecodedImage(halves[0], both.notes), DecodedImage(halves[1], both.notes)


def _pair(
    first: DecodedImage, second: DecodedImage, policy: DecodePolicy, *masks: DecodedImage | DecodeError
) -> DecodedPair:
    notes = tuple(f"generated:{note}" for note in first.notes) + tuple(f"target:{note}" for note in second.notes)
    a, b = first.pixels, second.pixels
    mask, mask_notes = _mask_of(second, *masks) if masks else (None, ())
    notes += mask_notes
    if a.dtype != b.dtype:
        widen = _as_floats if np.float32 in (a.dtype, b.dtype) else _widened
        a, b = widen(a), widen(b)
    if a.shape != b.shape:
        a, b, fit_notes = _fitted(a, b, policy.size_mismatch)
        notes += fit_notes
        # The target may have been cropped.
        mask = None if mask is None else _cropped(mask, b.shape[1], b.shape[0])
    return DecodedPair(a, b, notes, mask)


def _mask_of(target: DecodedImage, mask: DecodedImage | DecodeError) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels of the target that a mask lets count, bool [H, W], and notes."""
    if isinstance(mask, DecodeError):
        raise mask
    if mask.pixels.shape != target.pixels.shape:
        message = f"It is {_size(mask.pixels)}, but its target is {_size(target.pixels)}."
        raise DecodeError("mask_mismatch", message, "mask")
    # A mask is gray, and one that lets everything through is constant.
    notes = tuple(f"mask:{note}" for note in mask.notes if note not in ("gray", "constant"))
    return counted_pixels(mask.pixels), notes


def counted_pixels(mask: np.ndarray) -> np.ndarray:
    """The pixels that a decoded mask [H, W, 3] lets count, those brighter than the middle of its range: bool [H, W]."""
    return _as_floats(mask).mean(axis=2) > 0.5


def check_length(bytes: int, policy: DecodePolicy) -> None:
    """Refuses an image by its size alone. Raises DecodeError."""
    if bytes > policy.max_image_bytes:
        raise DecodeError("too_many_bytes", f"{bytes} bytes; max_image_bytes is {policy.max_image_bytes}.")


def decode_image(data: bytes | None, policy: DecodePolicy) -> DecodedImage:
    """Decodes one image. Safe to call from many threads.

    Raises:
        DecodeError: for everything that is not an image within the limits; nothing else is raised.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("L", (3, 2)).save(file, "PNG")
        >>> image = decode_image(file.getvalue(), DecodePolicy())
        >>> image.pixels.shape, image.notes
        ((2, 3, 3), ('gray', 'constant'))
    """
    if data is None:
        raise DecodeError("null_image", "The record holds no image.")
    if not data:
        raise DecodeError("empty_bytes", "The image has no bytes.")
    check_length(len(data), policy)
    if is_array(data):
        return DecodedImage(*decode_array(data, policy.range, policy.layout, policy.max_image_pixels))
    try:
        pixels, notes = to_rgb(
            load_image(data, policy.max_image_pixels), policy.background_color, policy.color == "convert"
        )
    except DecodeError:
        raise
    except Exception as error:
        # Pillow raises nearly anything on hostile bytes, and one bad record must not end a run.
        raise DecodeError(_meaning(error), f"{sniff(data).name}: {type(error).__name__}: {error}") from error
    return DecodedImage(pixels, notes)


def _decode_member(member: str, data: bytes | None, policy: DecodePolicy) -> DecodedImage:
    try:
        return decode_image(data, policy)
    except DecodeError as error:
        raise DecodeError(error.reason, error.message, member) from error


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


# ---- Two images, one size ----


def _widened(pixels: np.ndarray) -> np.ndarray:
    """The pixels as uint16; 255 becomes 65535."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def _as_floats(pixels: np.ndarray) -> np.ndarray:
    """The pixels as float32 in [0, 1]."""
    return pixels if pixels.dtype == np.float32 else (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)


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
    if pixels.dtype == np.float32:
        return np.stack(channels, axis=2).clip(0, 1)
    return np.stack(channels, axis=2).round().clip(0, 65535).astype(np.uint16)


def _cropped(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The centre of the pixels; of an odd rest the larger half is cut below and on the right."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
