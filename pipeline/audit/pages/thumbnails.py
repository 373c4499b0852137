"""Pictures of a pair for a page: generated, target, their difference, and maps of where something is large."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from transforms.images.pairs import DecodedPair

SIDE = 256

# Distance between the positions that are tried for a crop, in pixels.
_STRIDE = 16
# The share of a map's values that is not shown as the brightest; the few above it would darken all others.
_BRIGHTEST = 0.995
# The quality of maps, which is Pillow's default; without loss the number means effort.
_QUALITY = 80
# From no change to the strongest: black, violet, red, orange, pale yellow.
_HEAT = np.array([[8, 6, 20], [92, 22, 116], [206, 60, 78], [250, 152, 32], [252, 250, 180]], np.float32)


@dataclass(frozen=True)
class Thumbnail:
    """A picture inside a page.

    Attributes:
        kind: `generated`, `target`, `difference`, or that of a map.
        caption: for people.
        uri: the picture itself, as a `data:` URI.
        width: in pixels.
        height: in pixels.
        crop: whether it shows a part of the image, one pixel per pixel, and not all of it, made smaller.
    """

    kind: str
    caption: str
    uri: str
    width: int
    height: int
    crop: bool = False


@dataclass(frozen=True)
class Heat:
    """A map to show.

    Attributes:
        kind: `gradient` of an objective, or `map` of a loss.
        caption: for people.
        values: [H, W], at least 0. The few largest of a gradient are far above all others: its root is shown.
    """

    kind: str
    caption: str
    values: np.ndarray


def thumbnails(
    pair: DecodedPair, maps: Sequence[Heat] = (), difference_gain: float | None = None
) -> tuple[Thumbnail, ...]:
    """The pictures of a pair, at most `SIDE` pixels high and wide; the images and their difference without loss.

    Larger images are made smaller, and followed by a crop of each where the difference is largest.

    Args:
        pair: two images.
        maps: shown in colours over the generated image.
        difference_gain: factor that makes the difference brighter; None: the factor that makes it fill the range.
    """
    generated, target = _levels(pair.generated), _levels(pair.target)
    difference = np.abs(generated - target)
    gain = _filling_gain(difference) if difference_gain is None else difference_gain * bool(difference.any())
    caption = f"difference ×{gain:.2g}" if gain else "no difference"  # noqa: RUF001 (times)
    images = [("generated", "generated", generated), ("target", "target", target)]
    images.append(("difference", caption, difference * gain))
    pictures = [_thumbnail(*image) for image in images]
    pictures += [_thumbnail(heat.kind, heat.caption, _heated(heat, generated), lossless=False) for heat in maps]
    if max(difference.shape) > SIDE:
        top, left = _worst_window(difference)
        for kind, caption, image in images:
            part = image[top : top + SIDE, left : left + SIDE]
            pictures.append(_thumbnail(kind, f"{caption}, 1:1 at {left}, {top}", part, crop=True))
    return tuple(pictures)


def _worst_window(difference: np.ndarray) -> tuple[int, int]:
    """Top and left of the window of `SIDE` x `SIDE` pixels, or less in a smaller image, that differs most."""
    sums = np.pad(difference.sum(axis=2, dtype=np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    lasts = [max(0, size - SIDE) for size in difference.shape[:2]]
    tops, lefts = (np.append(np.arange(0, last, _STRIDE), last) for last in lasts)
    bottoms, rights = (np.minimum(starts + SIDE, difference.shape[axis]) for axis, starts in enumerate((tops, lefts)))
    windows = sums[np.ix_(bottoms, rights)] - sums[np.ix_(tops, rights)]
    windows += sums[np.ix_(tops, lefts)] - sums[np.ix_(bottoms, lefts)]
    # Many windows may hold all of a small defect; the middle one shows what is around it.
    best = np.argwhere(windows >= windows.max() * (1 - 1e-9))
    row, column = best[len(best) // 2]
    return int(tops[row]), int(lefts[column])


def _levels(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1]."""
    # Pixels of arrays are in that range.
    return pixels if pixels.dtype == np.float32 else pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def _filling_gain(values: np.ndarray) -> float:
    """The factor that makes the values fill [0, 1]; 0 if they are all 0."""
    largest = float(np.quantile(values, _BRIGHTEST)) or float(values.max())
    return 1 / largest if largest else 0.0


def _heated(heat: Heat, picture: np.ndarray) -> np.ndarray:
    """The map in colours over the darkened gray picture, which shows what the colours refer to."""
    strength = np.clip(heat.values * _filling_gain(heat.values), 0, 1)
    if heat.kind == "gradient":
        strength = np.sqrt(strength)
    position = strength * (len(_HEAT) - 1)
    colours = [np.interp(position, range(len(_HEAT)), channel) for channel in _HEAT.T / 255]
    gray = picture.mean(axis=2) * 0.35
    return np.stack([np.maximum(colour, gray * (1 - strength)) for colour in colours], axis=2)


def _thumbnail(kind: str, caption: str, pixels: np.ndarray, crop: bool = False, lossless: bool = True) -> Thumbnail:
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = BytesIO()
    # A lossy codec would hide the defects that people look for; maps only show where they are, in a tenth of the bytes.
    image.save(content, "WEBP", lossless=lossless, quality=_QUALITY)
    uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
    return Thumbnail(kind, caption, uri, image.width, image.height, crop)
