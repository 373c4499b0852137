"""SSIMULACRA 2: how much of an image's quality a codec has kept, as libjxl computes it.

Sneyers 2022 and 2023, https://github.com/cloudinary/ssimulacra2. Three error maps in the colours of the eye, XYB, at
six octaves: of structure (SSIM), of edges that only the generated image has, and of edges that it lacks. The arithmetic
is float64, because variances of similar images cancel.
"""

import math

import numpy as np
import tensorflow as tf

from transforms.losses.color import linear_rgb
from transforms.losses.pair import Pair
from transforms.losses.pixels import power

OCTAVES = 6
# Below this, an octave is the last one.
SMALLEST_SIDE = 8
SSIM_C2 = 0.0009

# From linear sRGB to what the three kinds of cones absorb, and what they absorb in the dark.
_CONES = ((0.30, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342268924547819, 0.20476744424496821, 0.5518098665095536))
_DARK = 0.0037930732552754493

# Lines: X, Y, B, six octaves of each. Columns: structure, new edges, lost edges, of the mean; the same of the 4-norm.
# fmt: off
_WEIGHTS = (
    0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0,
    0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752,
    0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0,
    0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0,
    0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053,
    0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0,
    0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262,
    0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264,
    225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985,
    176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408,
    0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0,
    0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0,
    95.1080498811086, 0.9863978034400682, 0.9834382792465353, 0.0012286405048278493, 171.2667255897307, 0.9807858872435379,  # noqa: E501
    0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537,
)
# fmt: on


def ssimulacra2(pair: Pair) -> tf.Tensor:
    """SSIMULACRA 2 score, at most 100, which an identical pair has; sides of 8 pixels or more.

    About 90 is visually lossless, 70 high and 50 medium quality; bad pairs score below 0. An image of less than 113
    pixels has fewer octaves; libjxl then takes the weights one after the other from the first, and so does this.
    """
    images = [linear_rgb(images) for images in (pair.target, pair.generated)]
    side = tf.reduce_min(tf.shape(pair.generated)[1:3])
    # An octave is computed if the one before was large enough.
    octaves = sum(tf.cast(-(-side // 2 ** max(octave - 1, 0)) >= SMALLEST_SIDE, tf.int32) for octave in range(OCTAVES))
    norms = []
    for octave in range(OCTAVES):
        if octave:
            # SAME averages only the pixels inside, as if an odd height repeated its last row.
            images = [tf.nn.avg_pool2d(image, 2, 2, "SAME") for image in images]
        norms.append(_norms(*map(_xyb, images)))
    error = tf.reduce_sum(tf.stack(norms, axis=1) * tf.gather(_BY_OCTAVES, octaves), axis=[1, 2, 3])
    error *= 0.9562382616834844
    error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
    return tf.cast(100 - 10 * power(error, 0.6276336467831387), tf.float32)


def _norms(target: tf.Tensor, generated: tf.Tensor) -> tf.Tensor:
    """The norms of the error maps of two images in XYB [B, H, W, 3]: [B, 3, 6], columns as in `_WEIGHTS`."""
    difference = generated - target
    maps = (target, generated, target**2 + generated**2, difference**2)
    mean_t, mean_g, squares, square_difference = tf.split(_blur(tf.concat(maps, axis=-1)), 4, axis=-1)
    # The definition's 1 - (1 - (mt - mg)²) (2 cov + C2) / (vt + vg + C2), with the variance of the difference: its
    # value and gradient are exactly 0 for an identical pair.
    mean_error = (mean_g - mean_t) ** 2
    variances = squares - mean_t**2 - mean_g**2
    variance_error = (square_difference - mean_error) / (variances + SSIM_C2)
    structure = tf.nn.relu(mean_error + variance_error - mean_error * variance_error)
    edges = (1 + tf.abs(generated - mean_g)) / (1 + tf.abs(target - mean_t)) - 1
    errors = tf.stack([structure, tf.nn.relu(edges), tf.nn.relu(-edges)], axis=-1)
    return tf.concat([tf.reduce_mean(errors, axis=[1, 2]), power(tf.reduce_mean(errors**4, axis=[1, 2]), 0.25)], -1)


def _xyb(linear: tf.Tensor) -> tf.Tensor:
    """Linear RGB to XYB, scaled and shifted so that each channel of sRGB lies in [0, 1]."""
    red, green, blue = (
        tf.pow(tf.maximum(tf.reduce_sum(linear * cone, axis=-1) + _DARK, 1e-30), 1 / 3) - _DARK ** (1 / 3)
        for cone in _CONES
    )
    x, y = (red - green) / 2, (red + green) / 2
    return tf.stack([14 * x + 0.42, y + 0.01, blue - y + 0.55], axis=-1)


def _blur(maps: tf.Tensor) -> tf.Tensor:
    """Blur each channel with zeros around."""
    radius = len(_TAPS) // 2
    maps = tf.pad(maps, [[0, 0], [radius, radius], [radius, radius], [0, 0]])
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = _TAPS.reshape(shape).repeat(maps.shape[-1], axis=2)
        maps = tf.nn.depthwise_conv2d(maps, kernel, strides=[1, 1, 1, 1], padding="VALID")
    return maps


def _truncated_cosines(sigma: float) -> np.ndarray:
    """The taps of libjxl's Gaussian, three cosines that fit it up to a radius.

    Charalampidis 2016, "Recursive implementation of the Gaussian filter using truncated cosine functions"; the numbers
    are those of its formulas.
    """
    radius = round(3.2795 * sigma + 0.2546)  # (57)
    omega = np.array([1, 3, 5]) * math.pi / (2 * radius)
    p = np.array([1, -1, 1]) / np.tan(omega / 2)  # (37)
    r = np.array([1, -1, 1]) * p**2 / np.sin(omega)  # (44)
    rho = np.exp(-((sigma * omega) ** 2) / 2) / radius  # (50)
    zeta = np.cross(p, r)  # (52)
    matrix = np.stack([p, r, zeta / zeta[2]])  # (56)
    beta = np.linalg.solve(matrix, [1, radius**2 - sigma**2, zeta @ rho / zeta[2]])  # (53)
    offsets = np.arange(1 - radius, radius)[:, np.newaxis]
    taps: np.ndarray = np.cos(offsets * omega) @ beta
    return taps


def _weights_by_octaves() -> np.ndarray:
    """For each number of octaves the weights [octaves, channels, norms], 0 for the octaves that are absent."""
    weights = np.zeros((OCTAVES + 1, OCTAVES, 3, 6))
    for octaves in range(1, OCTAVES + 1):
        used = np.reshape(_WEIGHTS[: 3 * octaves * 6], (3, octaves, 6))
        weights[octaves, :octaves] = used.transpose(1, 0, 2)
    return weights


_TAPS = _truncated_cosines(sigma=1.5)
_BY_OCTAVES = _weights_by_octaves()
