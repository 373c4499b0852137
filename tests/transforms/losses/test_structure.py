"""SSIM, MS-SSIM and GMSD: against TensorFlow, and at their limits."""

import numpy as np
import pytest
import tensorflow as tf
from support import reference

from transforms.losses import structure
from transforms.losses.pair import Pair


def noisy_pairs(height, width):
    rng = np.random.default_rng(3)
    target = rng.random((2, height // 8 + 1, width // 8 + 1, 3)).repeat(8, axis=1).repeat(8, axis=2)
    target = target[:, :height, :width]
    generated = np.clip(target + rng.normal(0, 0.1, target.shape), 0, 1)
    return tuple(tf.constant(np.rint(255 * images) / 255, tf.float32) for images in (generated, target))


@pytest.mark.parametrize(
    ("loss", "tensorflows", "size"),
    [
        (structure.ssim, tf.image.ssim, (11, 11)),
        (structure.ssim, tf.image.ssim, (40, 33)),
        (structure.ms_ssim, tf.image.ssim_multiscale, (176, 176)),
        (structure.ms_ssim, tf.image.ssim_multiscale, (161, 183)),
    ],
)
def test_equals_tensorflows_own(loss, tensorflows, size):
    pairs = noisy_pairs(*size)
    # TensorFlow's variances are differences of larger float32 numbers: they hold 5 digits.
    np.testing.assert_allclose(loss(Pair(*pairs)), tensorflows(*pairs, max_val=1.0), rtol=2e-5)


def test_ssim_of_nearly_identical_bright_pairs_keeps_its_digits():
    rng = np.random.default_rng(11)
    target = np.full((64, 64, 3), 0.95, np.float32)
    generated = (target + rng.normal(0, 1e-4, target.shape)).astype(np.float32)
    value = structure.ssim(Pair(generated[np.newaxis], target[np.newaxis])).numpy()[0]
    expected = reference.ssim(generated.astype(np.float64), target.astype(np.float64))
    # 1 - SSIM is 1.1e-5: with the textbook's formula in float32 it would drown in an error of about 1e-5.
    assert value == pytest.approx(expected, abs=1e-7)


def test_ms_ssim_counts_opposite_structure_as_none():
    _, target = noisy_pairs(161, 161)
    generated = 1 - target
    with tf.GradientTape() as tape:
        tape.watch(generated)
        value = structure.ms_ssim(Pair(generated, target))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(tape.gradient(value, generated), 0)


def test_gmsd_does_not_see_what_rounds_away():
    rng = np.random.default_rng(2)
    target = rng.integers(0, 256, (32, 32, 3)).astype(np.float32)
    generated = target.copy()
    # One level of blue is 0.114 of luma: only the pixels whose luma crosses a half change.
    luma = target @ [0.298936021293775, 0.587043074451121, 0.114020904255103]
    stays = (np.floor(luma + 0.5) == np.floor(luma + 0.114020904255103 + 0.5)) & (target[..., 2] < 255)
    generated[stays, 2] += 1
    assert stays.mean() > 0.8
    assert structure.gmsd(Pair(generated[np.newaxis] / 255, target[np.newaxis] / 255)).numpy() == 0


@pytest.mark.parametrize("size", [(16, 16), (15, 16), (16, 15), (15, 15)])
def test_gmsd_halves_odd_sides_with_zeros_outside(size):
    target = np.full(size, 200.0)
    generated = target.copy()
    generated[-1, -1] = 0
    images = [np.repeat(x[:, :, np.newaxis], 3, axis=2) / 255 for x in (generated, target)]
    value = structure.gmsd(Pair(*(tf.constant(x[np.newaxis], tf.float32) for x in images))).numpy()[0]
    # A last row without a partner is averaged with zeros, as GMSD.m does: there is an edge to lose even in flat gray.
    assert value == pytest.approx(reference.gmsd(*images), rel=1e-5)
    assert value > 0
