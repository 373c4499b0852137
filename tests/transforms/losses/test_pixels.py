"""The losses that compare pixel by pixel."""

import numpy as np
import pytest
import tensorflow as tf

from transforms.losses import pixels
from transforms.losses.pair import Pair


def flat_pair(generated, target):
    return Pair(tf.fill([1, 4, 5, 3], generated), tf.fill([1, 4, 5, 3], target))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (pixels.mae, 0.1),
        (pixels.mse, 0.01),
        (pixels.psnr, 20.0),
        (pixels.charbonnier, (0.01 + 1e-6) ** 0.5),
    ],
)
def test_value_of_a_constant_difference(loss, expected):
    assert loss(flat_pair(0.6, 0.5)).numpy() == pytest.approx([expected], rel=1e-5)


def test_psnr_tells_apart_what_8_bits_can():
    one_level_in_one_pixel = np.zeros((1, 64, 64, 3), np.float32)
    one_level_in_one_pixel[0, 0, 0, 0] = 1 / 255
    value = pixels.psnr(Pair(tf.constant(one_level_in_one_pixel), tf.zeros([1, 64, 64, 3]))).numpy()
    assert value == pytest.approx([20 * np.log10(255) + 10 * np.log10(64 * 64 * 3)], rel=1e-5)


def test_charbonnier_is_smooth_where_the_absolute_error_has_its_kink():
    pair = flat_pair(0.5 + 1e-5, 0.5)
    with tf.GradientTape() as tape:
        tape.watch(pair.generated)
        value = pixels.charbonnier(pair)
    slope = tape.gradient(value, pair.generated).numpy() * 60
    assert slope == pytest.approx(np.full((1, 4, 5, 3), 0.01), rel=0.01)
