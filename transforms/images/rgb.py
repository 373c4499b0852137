"""Stored pixels to upright RGB, with a note for every change."""

import numpy as np
from PIL import Image

from transforms.images.color import is_srgb, to_srgb
from transforms.images.image_files import LoadedImage
from transforms.images.orientation import find_orientation, turned

# Keys of `decode.NOTES`, one for each thing done to an image.
Notes = tuple[str, ...]
Color = tuple[int, int, int]

_MODE_NOTES = {"1": "gray", "L": "gray", "LA": "gray", "P": "palette", "PA": "palette", "CMYK": "cmyk"}


def to_rgb(loaded: LoadedImage, background: Color, convert: bool) -> tuple[np.ndarray, Notes]:
    """Turns an image upright and converts it to RGB.

    Args:
        loaded: the image.
        background: what transparency is composited on, in [0, 255].
        convert: whether to apply ICC profiles.

    Returns:
        Pixels [H, W, 3], C-contiguous, perhaps read-only: uint16 in [0, 65535] if the file has more than 8 bits per
        channel and they could be kept, otherwise uint8 in [0, 255]. And the notes.
    """
    stored = loaded.stored
    if isinstance(stored, Image.Image) and not stored.mode.startswith("I"):
        pixels, alpha, mode_note = *_split_image(stored), _MODE_NOTES.get(stored.mode)
    else:
        pixels, alpha, mode_note = _split_samples(np.asarray(stored), loaded)
    notes = loaded.notes
    pixels, color_note = _in_srgb(pixels, loaded, mode_note, convert)
    if color_note:
        notes += (color_note,)
    if color_note == "icc_converted" and mode_note == "cmyk":
        mode_note = None
    orientation, readable = find_orientation(loaded.image)
    if not readable:
        notes += ("exif_unreadable",)
    if orientation != 1:
        notes += ("exif_rotated",)
    if pixels.dtype == np.uint16:
        notes += ("16bit",)
    elif loaded.bits > 8:
        notes += ("bits_reduced",)
    if mode_note:
        notes += (mode_note,)
    if alpha is not None:
        pixels, alpha_note = _composited(pixels, alpha, background, loaded.may_lack_alpha)
        notes += alpha_note
    if _is_constant(pixels):
        notes += ("constant",)
    return turned(pixels, orientation), notes


def _split_image(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours [H, W, 3] and opacity [H, W] of an image of 8 bits; None: opaque."""
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        channel = image.getchannel("A")
        alpha = None if channel.getextrema() == (255, 255) else np.asarray(channel)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha


def _split_samples(samples: np.ndarray, loaded: LoadedImage) -> tuple[np.ndarray, np.ndarray | None, str | None]:
    """Colours [H, W, 3], opacity [H, W] and note of samples [H, W] or [H, W, C]; 2 and 4 channels end with opacity."""
    if samples.ndim == 2:
        samples = samples[:, :, np.newaxis]
    if samples.dtype != np.uint8:
        samples = samples.astype(np.uint16, copy=False)
    channels = samples.shape[2]
    colors, alpha = (samples[:, :, :-1], samples[:, :, -1]) if channels in (2, 4) else (samples, None)
    key = loaded.image.info.get("transparency")
    if key is not None and alpha is None:
        alpha = np.where((colors == np.asarray(key)).all(axis=2), 0, np.iinfo(colors.dtype).max).astype(colors.dtype)
    if alpha is not None and loaded.image.info.get("premultiplied"):
        opaque = np.maximum(alpha, 1)[:, :, np.newaxis] / 65535
        colors = (colors / opaque).round().clip(0, 65535).astype(np.uint16)
    if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
        alpha = None
    if channels < 3:
        return np.repeat(colors, 3, axis=2), alpha, "gray"
    return np.ascontiguousarray(colors), alpha, _MODE_NOTES.get(loaded.image.mode)


def _in_srgb(
    pixels: np.ndarray, loaded: LoadedImage, mode_note: str | None, convert: bool
) -> tuple[np.ndarray, str | None]:
    """The colours, converted by the profile if that is wanted, and what is to be said of the profile."""
    if "icc_profile" not in loaded.image.info:
        return pixels, None
    profile = loaded.image.info["icc_profile"]
    if mode_note != "cmyk" and is_srgb(profile, gray=mode_note == "gray"):
        return pixels, None
    if convert:
        pixels8 = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        if mode_note == "cmyk":
            assert isinstance(loaded.stored, Image.Image)
            image = loaded.stored
        else:
            image = Image.fromarray(pixels8[:, :, 0].copy() if mode_note == "gray" else pixels8)
        converted = to_srgb(image, profile)
        if converted is not None:
            return np.asarray(converted), "icc_converted"
    return pixels, "icc_profile"


def _composited(
    pixels: np.ndarray, alpha: np.ndarray, background: Color, may_lack_alpha: bool
) -> tuple[np.ndarray, Notes]:
    """The colours on the background, and the note."""
    if may_lack_alpha and not alpha.any():
        return pixels, ("alpha_ignored",)
    if pixels.dtype == np.uint8:
        mask = alpha if alpha.dtype == np.uint8 else (alpha >> 8).astype(np.uint8)
        canvas = Image.new("RGB", pixels.shape[1::-1], background)
        canvas.paste(Image.fromarray(pixels), mask=Image.fromarray(mask))
        return np.asarray(canvas), ("alpha",)
    opacity = alpha[:, :, np.newaxis] / 65535
    behind = np.array(background) * 257.0
    return (behind + (pixels - behind) * opacity).round().astype(np.uint16), ("alpha",)


def _is_constant(pixels: np.ndarray) -> bool:
    # The first row settles it for most pictures. Rows are compared with a row, for NumPy is slow by threes.
    row = pixels[0]
    return bool((row == row[0]).all() and (pixels == row).all())
