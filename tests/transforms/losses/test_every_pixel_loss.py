"""The properties that every loss on pixels must have: one row per loss of the catalogue."""

import functools
from pkgutil import resolve_name

import numpy as np
import pytest
import tensorflow as tf
from support import reference
from support.hostile import KINDS, allowed_error, as_floats, hostile_pair

from transforms.losses.catalog import LOSSES
from transforms.losses.pair import Pair

ON_PIXELS = [name for name, loss in LOSSES.items() if not loss.network]
COMPARING = [name for name in ON_PIXELS if LOSSES[name].direction != "none"]
DIFFERENTIABLE = [name for name in ON_PIXELS if LOSSES[name].differentiable]
# One pixel has no reflected border, and Sobel is refused there: test_edges.py. SSIMULACRA 2 calls all smaller pairs
# perfect.
NOT_BY_FORMULA = {"sobel_l1", "sobel_l2", "ssimulacra2"}
FROM_SOME_SIZE_ON = [n for n in ON_PIXELS if LOSSES[n].min_side > 1 and n not in NOT_BY_FORMULA]

SIZES = ((1, 1), (2, 3), (3, 3), (9, 9), (11, 11), (16, 16), (17, 23), (32, 20), (161, 161), (165, 178))
# MATLAB's rgb2gray of a picture of 8 bits: the reference rounds others first.
OF_8_BITS = {"gmsd", "ssim_luma"}
OF_IDENTICAL = {"psnr": np.inf, "psnr_y": np.inf, "ssimulacra2": 100.0}
OF_IDENTICAL |= dict.fromkeys(("ssim", "ssim_y", "ssim_luma", "ms_ssim"), 1.0)


def sizes_of(name):
    """The smallest size of the loss and the next few, odd ones among them."""
    return [size for size in SIZES if min(size) >= LOSSES[name].min_side][:5]


def smooth_image(height, width, phase=0.0):
    rows, columns = np.mgrid[:height, :width][..., np.newaxis] / 7.0
    return 0.5 + 0.3 * np.sin(rows + phase + np.arange(3)) * np.cos(0.6 * columns) + 0.2 * np.sin(0.1 * rows + columns)


def pair(kind, height, width):
    """Generated and target image [H, W, 3] of 8 bits, as float32 in [0, 1]."""
    rng = np.random.default_rng(height * 1000 + width)
    target = smooth_image(height, width)
    generated = {
        "unrelated": rng.random(target.shape),
        "shifted": smooth_image(height, width, phase=0.5),
        "noisy": target + rng.normal(0, 0.1, target.shape),
        "almost identical": target + rng.integers(-1, 2, target.shape) / 255,
    }[kind]
    return tuple(to_levels(image) / np.float32(255) for image in (generated, target))


def to_levels(image):
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.float32)


@functools.cache
def graphs(name):
    """The loss, and its gradient to the generated images, as graphs for every batch and size."""
    loss = resolve_name(LOSSES[name].function)
    images = tf.TensorSpec([None, None, None, 3], tf.float32)

    @tf.function(input_signature=[images, images])
    def value(generated, target):
        return loss(Pair(generated, target))

    @tf.function(input_signature=[images, images])
    def gradient(generated, target):
        with tf.GradientTape() as tape:
            tape.watch(generated)
            total = tf.reduce_sum(loss(Pair(generated, target)))
        return tape.gradient(total, generated)

    return value, gradient


def value_of(name, generated, target):
    return graphs(name)[0](generated[np.newaxis], target[np.newaxis]).numpy()[0]


def gradient_of(name, generated, target):
    return graphs(name)[1](generated[np.newaxis], target[np.newaxis]).numpy()[0]


@pytest.mark.parametrize("kind", ["unrelated", "shifted", "noisy", "almost identical"])
@pytest.mark.parametrize(("name", "size"), [(name, size) for name in ON_PIXELS for size in sizes_of(name)])
def test_equals_the_float64_reference(name, size, kind):
    generated, target = pair(kind, *size)
    expected = getattr(reference, name)(generated.astype(np.float64), target.astype(np.float64))
    # float32 carries 7 digits; sums over thousands of pixels and differences of squares spend up to two of them.
    np.testing.assert_allclose(value_of(name, generated, target), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ON_PIXELS)
def test_hostile_pictures_keep_their_digits(name, kind):
    pictures = hostile_pair(kind, *((12, 300) if LOSSES[name].min_side <= 11 else (162, 175)))
    if name in OF_8_BITS and pictures[0].dtype != np.uint8:
        return
    generated, target = map(as_floats, pictures)
    exact = getattr(reference, name)(generated.astype(np.float64), target.astype(np.float64))
    assert value_of(name, generated, target) == pytest.approx(exact, rel=0, abs=allowed_error(name, exact))


@pytest.mark.parametrize("name", ON_PIXELS)
def test_lies_in_the_range_of_the_catalogue(name):
    low, high = (float(bound) for bound in LOSSES[name].range.strip("[]()").split(","))
    size = sizes_of(name)[-1]
    checkerboard = np.indices(size).sum(0)[..., np.newaxis] % 2 * np.ones(3)
    extremes = checkerboard, np.zeros_like(checkerboard)
    for generated, target in (extremes, pair("unrelated", *size), pair("almost identical", *size)):
        assert low <= value_of(name, *map(np.float32, (generated, target))) <= high


@pytest.mark.parametrize("name", ON_PIXELS)
def test_batch_mates_do_not_matter(name):
    size = sizes_of(name)[-1]
    pairs = [pair(kind, *size) for kind in ("unrelated", "shifted", "noisy", "almost identical")]
    together = graphs(name)[0](*map(np.stack, zip(*pairs, strict=True))).numpy()
    alone = [value_of(name, generated, target) for generated, target in pairs]
    assert together.shape == (4,)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@pytest.mark.parametrize("image", ["smooth", "black", "white"])
@pytest.mark.parametrize("name", COMPARING)
def test_an_identical_pair_scores_exactly_its_best(name, image):
    identical = {
        "smooth": pair("shifted", *sizes_of(name)[-1])[0],
        "black": np.zeros((*sizes_of(name)[-1], 3), np.float32),
        "white": np.ones((*sizes_of(name)[-1], 3), np.float32),
    }[image]
    if name == "charbonnier":
        assert value_of(name, identical, identical) == pytest.approx(0.001, rel=1e-6)
    else:
        assert value_of(name, identical, identical) == OF_IDENTICAL.get(name, 0.0)
    if LOSSES[name].differentiable:
        assert not gradient_of(name, identical, identical).any()


@pytest.mark.parametrize("name", COMPARING)
def test_an_image_upside_down_is_another_image(name):
    target = pair("shifted", *sizes_of(name)[-1])[1]
    difference = value_of(name, target[::-1], target) - value_of(name, target, target)
    assert abs(difference) > 1e-3
    assert (difference > 0) == (LOSSES[name].direction == "lower")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_equals_central_differences_of_the_reference(name):
    rng = np.random.default_rng(5)
    size = sizes_of(name)[min(2, len(sizes_of(name)) - 1)]
    target = smooth_image(*size).astype(np.float32)
    # Not of 8 bits: there many differences are 0, where an absolute value has no derivative.
    generated = (target + rng.normal(0, 0.1, target.shape)).astype(np.float32)
    gradient = gradient_of(name, generated, target).astype(np.float64)
    function, step = getattr(reference, name), 1e-6
    for direction in (np.sign(gradient), rng.normal(size=target.shape), rng.normal(size=target.shape)):
        ahead, behind = (function(generated + s * direction, target.astype(np.float64)) for s in (step, -step))
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        # The float32 gradient has 5 digits or so; the step's own error in float64 is below 1e-6.
        assert (gradient * direction).sum() == pytest.approx((ahead - behind) / (2 * step), abs=2e-5 * scale)


@pytest.mark.parametrize("kind", ["unrelated", "negative"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_is_finite_far_from_the_target(name, kind):
    generated, target = pair("unrelated", *sizes_of(name)[-1])
    if kind == "negative":
        generated = 1 - target
    assert np.isfinite(gradient_of(name, generated, target)).all()


@pytest.mark.parametrize("name", FROM_SOME_SIZE_ON)
def test_the_formula_means_nothing_below_the_smallest_size(name):
    side = LOSSES[name].min_side
    with pytest.warns(RuntimeWarning):
        assert np.isnan(getattr(reference, name)(*pair("noisy", side - 1, side - 1)))
    assert np.isfinite(value_of(name, *pair("noisy", side, side)))
