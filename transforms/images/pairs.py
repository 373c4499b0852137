"""The images of a pair, and perhaps a mask, decoded and brought to one dtype and one size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transforms.images.decode import DecodedImage, DecodePolicy, decode_image
from transforms.images.decode_error import DecodeError


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


def _decode_member(member: str, data: bytes | None, policy: DecodePolicy) -> DecodedImage:
    try:
        return decode_image(data, policy)
    except DecodeError as error:
        raise DecodeError(error.reason, error.message, member) from error


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
