"""Small pictures of a pair for a page: generated, target, their difference, and where an objective wants a change."""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from transforms.images.decode import DecodedPair

SIDE = 256

_QUALITY = 82
# Of the values of a map, the share that is not shown as the brightest; the rest would darken everything else.
_BRIGHTEST = 0.995
# From no change to the strongest: black, violet, red, orange, pale yellow.
_HEAT = np.array([[8, 6, 20], [92, 22, 116], [206, 60, 78], [250, 152, 32], [252, 250, 180]], np.float32)


@dataclass(frozen=True)
class Thumbnail:
    """A picture inside a page.

    Attributes:
        kind: `generated`, `target`, `difference` or `gradient`.
        caption: for people.
        uri: the picture itself, as a `data:` URI.
        width: in pixels.
        height: in pixels.
    """

    kind: str
    caption: str
    uri: str
    width: int
    height: int


def thumbnails(
    pair: DecodedPair, heat: np.ndarray | None = None, objective: str = "", difference_gain: float | None = None
) -> tuple[Thumbnail, ...]:
    """The pictures of a pair, at most `SIDE` pixels high and wide.

    Args:
        pair: two images.
        heat: [H, W], at least 0: how strongly the objective wants to change each pixel.
        objective: its name.
        difference_gain: by which the difference is made brighter; None: such that it fills the range.
    """
    generated, target = _levels(pair.generated), _levels(pair.target)
    difference = np.abs(generated - target)
    gain = _filling_gain(difference) if difference_gain is None else difference_gain * bool(difference.any())
    pictures = [
        _thumbnail("generated", "generated", generated),
        _thumbnail("target", "target", target),
        _thumbnail("difference", f"difference ×{gain:.2g}" if gain else "no difference", difference * gain),  # noqa: RUF001 (times)
    ]
    if heat is not None:
        pictures.append(_thumbnail("gradient", f"gradient of {objective}", _heated(heat, generated)))
    return tuple(pictures)


def _levels(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def _filling_gain(values: np.ndarray) -> float:
    """The factor with which the values fill [0, 1]; 0: they are all 0."""
    largest = float(np.quantile(values, _BRIGHTEST)) or float(values.max())
    return 1 / largest if largest else 0.0


def _heated(heat: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The map in colours, on the darkened gray picture, so that one sees where in it one is."""
    # The root, for a few pixels mostly have far more than all others.
    strength = np.sqrt(np.clip(heat * _filling_gain(heat), 0, 1))
    position = strength * (len(_HEAT) - 1)
    colours = [np.interp(position, range(len(_HEAT)), channel) for channel in _HEAT.T / 255]
    gray = picture.mean(axis=2) * 0.35
    return np.stack([np.maximum(colour, gray * (1 - strength)) for colour in colours], axis=2)


def _thumbnail(kind: str, caption: str, pixels: np.ndarray) -> Thumbnail:
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = BytesIO()
    image.save(content, "WEBP", quality=_QUALITY)
    uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
    return Thumbnail(kind, caption, uri, image.width, image.height)
