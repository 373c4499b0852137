"""Stored pixels to upright RGB, with a note for every change."""

import struct

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from transforms.images.image_files import LoadedImage
from transforms.images.tiff import tiff_directory

# What was done to an image: keys of `decode.NOTES`.
Notes = tuple[str, ...]

_ORIENTATION = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODE_NOTES = {"1": "gray", "L": "gray", "LA": "gray", "P": "palette", "PA": "palette", "CMYK": "cmyk"}


def to_rgb(loaded: LoadedImage) -> tuple[np.ndarray, Notes]:
    """Turns an image upright and converts it to RGB, with transparency on white.

    Returns:
        Pixels [H, W, 3], C-contiguous, perhaps read-only: uint16 in [0, 65535] where Pillow keeps 16 bits (gray),
        otherwise uint8 in [0, 255]. And the notes.
    """
    notes = []
    if loaded.animated:
        notes.append("animated")
    if _has_foreign_profile(loaded.image):
        notes.append("icc_profile")
    image, turn_notes = _upright(loaded.image)
    notes += turn_notes
    if image.mode.startswith("I;16"):
        pixels, mode_notes = _gray16(image)
    else:
        if loaded.bits == 16:
            notes.append("16bit_reduced")
        rgb, mode_notes = _rgb(image)
        pixels = np.asarray(rgb)
    notes += mode_notes
    if _is_constant(pixels):
        notes.append("constant")
    return pixels, tuple(notes)


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


def _upright(image: ImageFile) -> tuple[Image.Image, Notes]:
    """The image turned as its EXIF orientation (TIFF: its own tag) says."""
    try:
        turn = _TURNS.get(_orientation(image))
    except struct.error:
        return image, ("exif_unreadable",)
    return (image.transpose(turn), ("exif_rotated",)) if turn is not None else (image, ())


def _orientation(image: ImageFile) -> int:
    """EXIF orientation, 1 where there is none.

    Read here, not with `getexif`, which loads every tag, however large, and is slow on photographs.

    Raises:
        struct.error: where the EXIF block ends too early.
    """
    if isinstance(image, TiffImageFile):
        return image.tag_v2.get(_ORIENTATION, 1)
    exif = image.info.get("exif")
    entries = tiff_directory(exif.removeprefix(b"Exif\0\0")) if exif else []
    return next((value for tag, _, _, value in entries if tag == _ORIENTATION), 1)


def _gray16(image: Image.Image) -> tuple[np.ndarray, Notes]:
    """Pixels of a 16-bit gray image, [H, W, 3] uint16 in the machine's byte order."""
    notes: Notes = ("16bit", "gray")
    gray = np.asarray(image).astype(np.uint16)
    clear = image.info.get("transparency")
    if clear is not None and (gray == clear).any():
        notes += ("alpha",)
        gray[gray == clear] = 65535
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2), notes


def _rgb(image: Image.Image) -> tuple[Image.Image, Notes]:
    """The image in mode RGB."""
    notes: Notes = (_MODE_NOTES[image.mode],) if image.mode in _MODE_NOTES else ()
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() != (255, 255):
            white = Image.new("RGB", rgba.size, "white")
            white.paste(rgba, mask=alpha)
            return white, (*notes, "alpha")
        image = rgba
    return image if image.mode == "RGB" else image.convert("RGB"), notes


def _is_constant(pixels: np.ndarray) -> bool:
    # The first row settles it for most pictures. Rows are compared with a row, for NumPy is slow by threes.
    row = pixels[0]
    return bool((row == row[0]).all() and (pixels == row).all())
