"""The images that a caller gives, as arrays or as files, checked and brought to pairs of one shape and type."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transforms.images.decode import DecodeError, DecodePolicy, decode_image
from transforms.images.pairs import counted_pixels, decode_pair

# One image or many: an array [H, W, 3] or [B, H, W, 3], the path of a file, or a list of arrays [H, W, 3] and paths.
# Masks are the same without channels.
Images = np.ndarray | str | Path | Sequence[np.ndarray | str | Path]


@dataclass(frozen=True)
class ImagePair:
    """Two images of one shape and type.

    Attributes:
        row: of the pair among all that were given.
        generated: [H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
        target: as `generated`.
        mask: the pixels that count, bool [H, W]; None: all.
    """

    row: int
    generated: np.ndarray
    target: np.ndarray
    mask: np.ndarray | None = None


def read_pairs(
    generated: Images, target: Images, policy: DecodePolicy, mask: Images | None = None
) -> tuple[int, Iterator[ImagePair]]:
    """Check the arrays and pair them up; files are decoded one pair at a time, as the pairs are taken.

    Returns:
        the number of pairs, and the pairs.

    Raises:
        ValueError: an array has another shape, type or range than images have, a file cannot be decoded, or the images
            and masks of a pair do not match. The message names the image.
    """
    first, second = (_listed(side, given, _image, 3) for side, given in (("generated", generated), ("target", target)))
    if len(first) != len(second):
        raise ValueError(f"there are {len(first)} generated images and {len(second)} target images; give pairs")
    masks = [] if mask is None else [_listed("mask", mask, _mask, 2)]
    if masks and len(masks[0]) != len(first):
        raise ValueError(f"there are {len(first)} pairs and {len(masks[0])} masks; give each pair its mask")
    return len(first), (_pair(row, policy, *parts) for row, parts in enumerate(zip(first, second, *masks, strict=True)))


def _listed(
    name: str, given: Any, check: Callable[[str, Any, tuple[int, ...]], np.ndarray], rank: int
) -> Sequence[np.ndarray | Path]:
    """One path or checked array, of this rank, for each image."""
    if isinstance(given, str | Path):
        return [Path(given)]
    if isinstance(given, list | tuple):
        return [
            Path(image) if isinstance(image, str | Path) else check(f"{name}[{row}]", image, (rank,))
            for row, image in enumerate(given)
        ]
    array = check(name, given, (rank, rank + 1))
    return [array] if array.ndim == rank else list(array)


def _array(name: str, given: Any) -> np.ndarray:
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array; give the pixels that count as mask=, and the image as given.data")
    array = np.asarray(given)
    if not array.ndim:
        raise ValueError(
            f"{name} is of type {type(given).__name__}; give an array, the path of a file, or a list of them"
        )
    if array.dtype.kind == "f" and (missing := np.isnan(array).sum()):
        raise ValueError(f"{name} has {missing} values that are not a number; replace them, or leave the pair out")
    # Kernels and TensorFlow know the machine's own order of bytes only.
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _image(name: str, given: Any, ranks: tuple[int, ...]) -> np.ndarray:
    array = _array(name, given)
    if array.ndim not in ranks or array.shape[-1] != 3 or 0 in array.shape[-3:]:
        allowed = " or ".join({3: "[H, W, 3]", 4: "[B, H, W, 3]"}[rank] for rank in ranks)
        raise ValueError(f"{name} has shape {list(array.shape)}; give RGB images {allowed}, channels last")
    if array.dtype in (np.uint8, np.uint16) or not array.size:
        return array
    if array.dtype.kind != "f":
        raise ValueError(f"{name} has dtype {array.dtype}; give uint8, uint16 (both of full range) or floats in [0, 1]")
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        raise ValueError(f"{name} has values from {low} to {high}; scale or clip floats to [0, 1], or give uint8")
    return array.astype(np.float32, copy=False)


def _mask(name: str, given: Any, ranks: tuple[int, ...]) -> np.ndarray:
    array = _array(name, given)
    if array.ndim not in ranks or array.dtype.kind not in "biuf":
        allowed = " or ".join({2: "[H, W]", 3: "[B, H, W]"}[rank] for rank in ranks)
        raise ValueError(f"{name} has shape {list(array.shape)} and dtype {array.dtype}; give numbers {allowed}")
    return array != 0


def _pair(
    row: int, policy: DecodePolicy, generated: np.ndarray | Path, target: np.ndarray | Path, *mask: np.ndarray | Path
) -> ImagePair:
    parts = (generated, target, *mask)
    counted: np.ndarray | None = None
    try:
        if isinstance(generated, Path) and isinstance(target, Path):
            encoded = (part.read_bytes() for part in mask if isinstance(part, Path))
            decoded = decode_pair(generated.read_bytes(), target.read_bytes(), policy, *encoded)
            pixels, counted = [decoded.generated, decoded.target], decoded.mask
        else:
            pixels = [
                decode_image(image.read_bytes(), policy).pixels if isinstance(image, Path) else image
                for image in (generated, target)
            ]
        if mask and counted is None:
            (part,) = mask
            counted = counted_pixels(decode_image(part.read_bytes(), policy).pixels) if isinstance(part, Path) else part
    except DecodeError as error:
        paths = " and ".join(str(part) for part in parts if isinstance(part, Path))
        raise ValueError(f"pair {row} ({paths}): {error}") from error
    if (pixels[0].shape, pixels[0].dtype) != (pixels[1].shape, pixels[1].dtype):
        sides = " and ".join(f"{image.dtype}{list(image.shape)}" for image in pixels)
        raise ValueError(f"pair {row}: generated and target differ: {sides}; give two images of one shape and dtype")
    if counted is not None and counted.shape != pixels[1].shape[:2]:
        sides = f"{list(counted.shape)}, its target {list(pixels[1].shape)}"
        raise ValueError(f"pair {row}: the mask has shape {sides}; give masks of the size of their targets")
    return ImagePair(row, pixels[0], pixels[1], counted)
