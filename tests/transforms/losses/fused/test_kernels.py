"""The fused kernels against the float64 references and against their definitions in TensorFlow."""

from pkgutil import resolve_name

import numpy as np
import pytest
from support import reference
from support.hostile import KINDS, allowed_error, as_floats, hostile_pair
from support.pictures import noise, smooth

from transforms.losses.catalog import LOSSES
from transforms.losses.pair import Pair, as_images

pytestmark = pytest.mark.heavy

KERNELS = {n: resolve_name(loss.kernel) for n, loss in LOSSES.items() if loss.kernel and not loss.network}
SMALL = [(2, 2), (3, 3), (11, 11), (11, 40), (12, 13), (33, 20), (64, 65)]
LARGE = [(161, 161), (162, 175)]
CASES = [
    (name, size)
    for name in KERNELS
    for size in (SMALL if LOSSES[name].min_side <= 64 else LARGE)
    if min(size) >= LOSSES[name].min_side
]
# MATLAB knows 8 bits only.
OF_8_BITS = {"gmsd", "ssim_luma"}
IDEAL = {"psnr": np.inf, "psnr_y": np.inf, "ssimulacra2": 100.0}
IDEAL |= dict.fromkeys(("ssim", "ssim_y", "ssim_luma", "ms_ssim"), 1.0)


def definition(name: str, generated: np.ndarray, target: np.ndarray) -> float:
    pair = Pair(*(as_images(image[None]) for image in (generated, target)))
    return float(resolve_name(LOSSES[name].function)(pair)[0])


@pytest.mark.parametrize(("name", "size"), CASES)
@pytest.mark.parametrize("kind", ["noise", "near", "smooth", "16 bit", "one pixel"])
def test_equals_the_definition(name, size, kind):
    target = smooth(*size)
    generated = noise(1, *size)
    if kind == "near":
        generated = np.clip(target.astype(int) + noise(2, *size) % 3 - 1, 0, 255).astype(np.uint8)
    elif kind == "smooth":
        generated = smooth(*size, shift=3)
    elif kind == "16 bit":
        generated, target = noise(3, *size, dtype=np.uint16), target * np.uint16(257)
    elif kind == "one pixel":
        generated = target.copy()
        generated[0, -1, 1] ^= 1
    value = KERNELS[name](generated, target)
    levels = np.iinfo(target.dtype).max
    exact = getattr(reference, name)(generated / levels, target / levels)
    if name not in OF_8_BITS or kind != "16 bit":
        assert value == pytest.approx(exact, rel=1e-6, abs=1e-9)
    # The definition rounds every pixel to float32, which shows where a smooth residual is differentiated.
    assert value == pytest.approx(definition(name, generated, target), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("of", ["levels", "floats"])
@pytest.mark.parametrize("name", KERNELS)
def test_identical_pair_is_exact(name, of):
    extra = LOSSES[name].min_side
    image = noise(0, 41 + extra, 37 + extra)
    image = as_floats(image) if of == "floats" else image
    assert KERNELS[name](image, image.copy()) == IDEAL.get(name, 0.0)


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in KERNELS for size in ([(11, 11), (12, 300)] if LOSSES[name].min_side <= 11 else LARGE)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_pictures_keep_six_digits(name, size, kind):
    pictures = hostile_pair(kind, *size)
    if name in OF_8_BITS and pictures[0].dtype != np.uint8:
        return
    for images in (pictures, [as_floats(image) for image in pictures]):
        white = 1 if images[0].dtype == np.float32 else np.iinfo(images[0].dtype).max
        exact = getattr(reference, name)(*(image.astype(np.float64) / white for image in images))
        assert KERNELS[name](*images) == pytest.approx(exact, rel=0, abs=allowed_error(name, exact)), images[0].dtype


@pytest.mark.parametrize("name", sorted(OF_8_BITS))
def test_floats_between_levels_equal_the_definition(name):
    """The reference rounds them first, which MATLAB's users do with 8 bits."""
    floats = hostile_pair("not of levels", 33, 20)
    assert KERNELS[name](*floats) == pytest.approx(definition(name, *floats), rel=1e-6)
