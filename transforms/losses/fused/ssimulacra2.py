"""SSIMULACRA 2 in few passes, in float64. `ssimulacra2` defines it, and says why its formulas look like this."""

import numpy as np

from transforms.losses.fused.color import linear_planes, replace_by_cube_roots
from transforms.losses.fused.structure import halved
from transforms.losses.ssimulacra2_constants import (
    BY_OCTAVES,
    C2,
    CONES,
    CUBIC,
    DARK,
    EXPONENT,
    OCTAVES,
    SMALLEST_SIDE,
    TAPS,
)
from transforms.worker.compiled import compiled

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}


def ssimulacra2(generated: np.ndarray, target: np.ndarray) -> float:
    """As `ssimulacra2.ssimulacra2`."""
    images = [linear_planes(image, CONES) for image in (target, generated)]
    norms = [_norms(*map(_xyb, images))]
    while len(norms) < OCTAVES and min(images[0].shape[1:]) >= SMALLEST_SIDE:
        images = [halved(image) for image in images]
        norms.append(_norms(*map(_xyb, images)))
    error = float(np.sum(norms * BY_OCTAVES[len(norms), : len(norms)]))
    error = sum(factor * error**degree for degree, factor in enumerate(CUBIC, 1))
    return 100 - 10 * max(error, 0.0) ** EXPONENT


def _norms(target: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """The norms of the error maps of two images in XYB [3, H, W]: [3, 6], in the order of `BY_OCTAVES`."""
    norms: np.ndarray = _error_sums(target, generated, TAPS, C2) / target[0].size
    norms[:, 3:] **= 0.25
    return norms


def _xyb(absorbed: np.ndarray) -> np.ndarray:
    """XYB [3, H, W] of what the cones absorb of the light."""
    xyb = absorbed + DARK
    # Nothing is darker than this limit.
    replace_by_cube_roots(xyb, 0.0035, 0.0, 0.0)
    _mix(xyb, DARK ** (1 / 3))
    return xyb


@compiled(nogil=True, error_model="numpy")
def _mix(roots, dark):  # type: ignore[no-untyped-def]
    """Turn cube roots into XYB, in place; `dark` is the root of darkness."""
    _, height, width = roots.shape
    for y in range(height):
        for x in range(width):
            red, green, blue = roots[0, y, x], roots[1, y, x], roots[2, y, x]
            roots[0, y, x] = 7 * (red - green) + 0.42
            roots[1, y, x] = (red + green) / 2 - dark + 0.01
            roots[2, y, x] = blue - (red + green) / 2 + 0.55


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _error_sums(target, generated, taps, guard):  # type: ignore[no-untyped-def]
    """Sums of structure, new and lost edges, and of their fourth powers, by channel of images [3, H, W]: [3, 6]."""
    channels, height, width = target.shape
    radius = len(taps) // 2
    # Zeros lie around.
    down = np.zeros((4, width + 2 * radius))
    mean, errors = np.empty((4, width)), np.empty((3, width))
    sums = np.zeros((channels, 6))
    for channel in range(channels):
        for y in range(height):
            down[:, radius : radius + width] = 0
            for tap in range(max(0, radius - y), min(2 * radius + 1, height + radius - y)):
                weight = taps[tap]
                theirs, ours = target[channel, y + tap - radius], generated[channel, y + tap - radius]
                for x in range(width):
                    t, g = theirs[x], ours[x]
                    down[0, radius + x] += weight * t
                    down[1, radius + x] += weight * (g - t)
                    down[2, radius + x] += weight * (t * t + g * g)
                    down[3, radius + x] += weight * (g - t) * (g - t)
            mean[:] = 0
            for tap in range(2 * radius + 1):
                weight = taps[tap]
                for x in range(width):
                    mean[0, x] += weight * down[0, x + tap]
                    mean[1, x] += weight * down[1, x + tap]
                    mean[2, x] += weight * down[2, x + tap]
                    mean[3, x] += weight * down[3, x + tap]
            for x in range(width):
                # The second mean is that of the difference, so that an identical pair has no error at all.
                mean_t, mean_g = mean[0, x], mean[0, x] + mean[1, x]
                mean_error = mean[1, x] * mean[1, x]
                variances = mean[2, x] - mean_t * mean_t - mean_g * mean_g
                variance_error = (mean[3, x] - mean_error) / (variances + guard)
                t, g = target[channel, y, x], generated[channel, y, x]
                edges = (1 + abs(g - mean_g)) / (1 + abs(t - mean_t)) - 1
                errors[0, x] = max(mean_error + variance_error - mean_error * variance_error, 0.0)
                errors[1, x] = max(edges, 0.0)
                errors[2, x] = max(-edges, 0.0)
            for kind in range(3):
                total, fourth_powers = 0.0, 0.0
                for x in range(width):
                    error = errors[kind, x]
                    total += error
                    fourth_powers += error * error * error * error
                sums[channel, kind] += total
                sums[channel, 3 + kind] += fourth_powers
    return sums
