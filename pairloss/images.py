"""The images that a caller gives, as arrays or as files, checked and brought to pairs of one shape and type."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transforms.images.decode import DecodeError, DecodePolicy, decode_image, decode_pair

# One image or many: an array [H, W, 3] or [B, H, W, 3], the path of a file, or a list of arrays [H, W, 3] and paths.
Images = np.ndarray | str | Path | Sequence[np.ndarray | str | Path]


@dataclass(frozen=True)
class ImagePair:
    """Two images of one shape and type.

    Attributes:
        row: of the pair among all that were given.
        generated: [H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
        target: as `generated`.
        mask: there is none.
    """

    row: int
    generated: np.ndarray
    target: np.ndarray
    mask: None = None


def read_pairs(generated: Images, target: Images, policy: DecodePolicy) -> tuple[int, Iterator[ImagePair]]:
    """Check the arrays and pair them up; files are decoded one pair at a time, as the pairs are taken.

    Returns:
        the number of pairs, and the pairs.

    Raises:
        ValueError: an array has another shape, type or range than images have, a file cannot be decoded, or the two
            sides do not match. The message names the image.
    """
    first, second = _images("generated", generated), _images("target", target)
    if len(first) != len(second):
        raise ValueError(f"there are {len(first)} generated images and {len(second)} target images; give pairs")
    return len(first), (_pair(row, *both, policy) for row, both in enumerate(zip(first, second, strict=True)))


def _images(side: str, given: Any) -> Sequence[np.ndarray | Path]:
    if isinstance(given, str | Path):
        return [Path(given)]
    if isinstance(given, list | tuple):
        return [
            Path(image) if isinstance(image, str | Path) else _array(f"{side}[{row}]", image, (3,))
            for row, image in enumerate(given)
        ]
    array = _array(side, given, (3, 4))
    return [array] if array.ndim == 3 else list(array)


def _array(name: str, given: Any, ranks: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(given)
    if array.ndim not in ranks or array.shape[-1] != 3 or 0 in array.shape[-3:]:
        allowed = " or ".join({3: "[H, W, 3]", 4: "[B, H, W, 3]"}[rank] for rank in ranks)
        raise ValueError(f"{name} has shape {list(array.shape)}; give RGB images {allowed}, channels last")
    if array.dtype in (np.uint8, np.uint16) or not array.size:
        return array
    if array.dtype.kind != "f":
        raise ValueError(f"{name} has dtype {array.dtype}; give uint8, uint16 (both of full range) or floats in [0, 1]")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # NaN compares as false
        raise ValueError(f"{name} has values from {low:g} to {high:g}; scale or clip floats to [0, 1], or give uint8")
    return array.astype(np.float32, copy=False)


def _pair(row: int, generated: np.ndarray | Path, target: np.ndarray | Path, policy: DecodePolicy) -> ImagePair:
    try:
        if isinstance(generated, Path) and isinstance(target, Path):
            decoded = decode_pair(generated.read_bytes(), target.read_bytes(), policy)
            return ImagePair(row, decoded.generated, decoded.target)
        pixels = [
            decode_image(image.read_bytes(), policy).pixels if isinstance(image, Path) else image
            for image in (generated, target)
        ]
    except DecodeError as error:
        paths = " and ".join(str(image) for image in (generated, target) if isinstance(image, Path))
        raise ValueError(f"pair {row} ({paths}): {error}") from error
    if (pixels[0].shape, pixels[0].dtype) != (pixels[1].shape, pixels[1].dtype):
        sides = " and ".join(f"{image.dtype}{list(image.shape)}" for image in pixels)
        raise ValueError(f"pair {row}: generated and target differ: {sides}; give two images of one shape and dtype")
    return ImagePair(row, pixels[0], pixels[1])
