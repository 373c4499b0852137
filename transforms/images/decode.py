"""An encoded image to pixels: untrusted bytes in, an RGB array and notes out, or one `DecodeError` with its reason.

The pixels are Pillow's, because these are the ones every peer sees.
"""

import re
import struct
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
    "check_length",
    "decode_image",
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
