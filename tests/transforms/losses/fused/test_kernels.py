"""The fused kernels against the float64 references and against their definitions in TensorFlow."""

from pkgutil import resolve_name

import numpy as np
import pytest
from support import reference
from support.pictures import noise, smooth

from transforms.losses.catalog import LOSSES
from transforms.losses.pair import Pair, as_images

pytestmark = pytest.mark.heavy

KERNELS = {n: resolve_name(loss.kernel) for n, loss in LOSSES.items() if loss.kernel and not loss.network}
SIZES = [(2, 2), (3, 3), (11, 11), (11, 40), (12, 13), (33, 20), (64, 65)]


def definition(name: str, generated: np.ndarray, target: np.ndarray) -> float:
    pair = Pair(*(as_images(image[None]) for image in (generated, target)))
    return float(resolve_name(LOSSES[name].function)(pair)[0])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["noise", "near", "smooth", "16 bit", "one pixel"])
def test_equals_the_definition(name, size, kind):
    if min(size) < LOSSES[name].min_side:
        pytest.skip("not defined at this size")
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
    # Single float32 roundings are 6e-8; SSIM is a sum of terms near 1, so its error does not shrink with its value.
    exact = getattr(reference, name)(generated / levels, target / levels)
    # MATLAB's GMSD knows 8 bits only.
    if (name, kind) != ("gmsd", "16 bit"):
        assert value == pytest.approx(exact, rel=1e-6, abs=5e-7 if name == "ssim" else 1e-9)
    # The definition rounds every pixel to float32, which shows where a smooth residual is differentiated.
    assert value == pytest.approx(definition(name, generated, target), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_identical_pair_is_exact(name):
    image = noise(0, 41, 37)
    expected = {"ssim": 1.0, "psnr": np.inf, "ssimulacra2": 100.0}.get(name, 0.0)
    assert KERNELS[name](image, image.copy()) == expected


@pytest.mark.parametrize("name", KERNELS)
def test_extremes_stay_finite(name):
    black, white = np.zeros((40, 30, 3), np.uint8), np.full((40, 30, 3), 255, np.uint8)
    assert KERNELS[name](black, white) == pytest.approx(definition(name, black, white), rel=2e-6, abs=1e-7)
