"""Maps as ncnn lays them out, and what happens to them between two convolutions, forward and back.

Float32 [C / P, h, w * P]: P neighbouring channels of a pixel, as many as a register of the processor holds, lie
together, then those of the next pixel. Each output of a convolution has a code, uint8 in the same layout, which tells
where a gradient passes on its way back.
"""

import numpy as np

from transforms.losses.networks.layers import L2_EPSILON, L2_WINDOW
from transforms.worker.aligned import aligned_empty
from transforms.worker.compiled import compiled

# Codes: of an output that is not positive, 0; of one that is; and of one that is its pooling's maximum, too.
POSITIVE, LARGEST = 1, 2


def framed(channels: int, height: int, width: int, pack: int) -> np.ndarray:
    """Maps, unset, in a frame of zeros one pixel wide: [C / P, height + 2, (width + 2) * P] for P = `pack`."""
    # ncnn loads whole registers.
    maps = aligned_empty((channels // pack, height + 2, (width + 2) * pack), np.float32)
    maps[:, 0] = maps[:, -1] = maps[:, :, :pack] = maps[:, :, -pack:] = 0
    return maps


def inside(maps: np.ndarray, pack: int) -> np.ndarray:
    """The maps in the frame, [C / P, h, w * P]."""
    return maps[:, 1:-1, pack:-pack]


def framed_planes(planes: np.ndarray, pack: int) -> np.ndarray:
    """Maps of P = `pack` in such a frame, from float32 [C, h, w]."""
    channels, height, width = planes.shape
    maps = framed(channels, height, width, pack)
    pixels = maps.reshape(channels // pack, height + 2, width + 2, pack)[:, 1:-1, 1:-1]
    pixels[:] = planes.reshape(channels // pack, pack, height, width).transpose(0, 2, 3, 1)
    return maps


def to_pixels(maps: np.ndarray, features: np.ndarray, pack: int) -> None:
    """Turn maps of P = `pack` into features, float32 [h, w, C]."""
    together = np.dtype((np.void, 4 * pack))
    np.copyto(features.view(together), maps.view(together).transpose(1, 2, 0))


def to_maps(features: np.ndarray, pack: int) -> np.ndarray:
    """Turn features, float32 [h, w, C], into maps of P = `pack`."""
    together = np.dtype((np.void, 4 * pack))
    return np.ascontiguousarray(features.view(together).transpose(2, 0, 1)).view(np.float32)


# Slices, unlike sums of indices, let the compiler know that no index is negative, so that it takes whole registers.


@compiled(nogil=True, error_model="numpy")
def to_planes(maps, first, planes, pack):  # type: ignore[no-untyped-def]
    """Turn maps of P = `pack`, which are rows from `first` on, into float32 [C, h, w]."""
    groups, height, width = maps.shape
    for group in range(groups):
        for y in range(height):
            row = maps[group, y]
            for p in range(pack):
                plane = planes[group * pack + p, first + y]
                for x in range(width // pack):
                    plane[x] = row[x * pack + p]


@compiled(nogil=True, error_model="numpy")
def pool(maps, first, codes, target, pack):  # type: ignore[no-untyped-def]
    """The maxima of 2 x 2 outputs, of rows from `first` on, into a frame; the first of each gets its code."""
    groups, height, width = maps.shape
    for group in range(groups):
        for y in range(0, height - 1, 2):
            out = target[group, (first + y) // 2 + 1]
            for x in range(0, width - pack, 2 * pack):
                a, b = maps[group, y, x : x + pack], maps[group, y, x + pack : x + 2 * pack]
                c, d = maps[group, y + 1, x : x + pack], maps[group, y + 1, x + pack : x + 2 * pack]
                most = out[x // 2 + pack : x // 2 + 2 * pack]
                for p in range(pack):
                    most[p] = max(max(a[p], b[p]), max(c[p], d[p]))
                if codes.size:
                    upper, lower = (
                        codes[group, first + y, x : x + 2 * pack],
                        codes[group, first + y + 1, x : x + 2 * pack],
                    )
                    code_a, code_b, code_c, code_d = upper[:pack], upper[pack:], lower[:pack], lower[pack:]
                    for p in range(pack):
                        # As code 1 already stands where an output is positive, 2 is one more.
                        at_a = (a[p] == most[p]) & (most[p] > 0)
                        at_b = (b[p] == most[p]) & (most[p] > 0) & (a[p] != most[p])
                        at_c = (c[p] == most[p]) & (most[p] > 0) & (a[p] != most[p]) & (b[p] != most[p])
                        at_d = (most[p] > 0) & (a[p] != most[p]) & (b[p] != most[p]) & (c[p] != most[p])
                        code_a[p] += np.uint8(at_a)
                        code_b[p] += np.uint8(at_b)
                        code_c[p] += np.uint8(at_c)
                        code_d[p] += np.uint8(at_d)


def pool_l2(maps: np.ndarray, target: np.ndarray, pack: int, groups: slice) -> None:
    """The `l2` pooling of `layers.Layer` from a frame into another, of some groups of P = `pack` channels."""
    _pool_l2(maps[groups], target[groups], pack, L2_WINDOW.sum(axis=0), np.float32(L2_EPSILON))


@compiled(nogil=True, error_model="numpy")
def _pool_l2(maps, target, pack, window, epsilon):  # type: ignore[no-untyped-def]
    groups, height, length = target.shape
    outer, middle = window[0], window[1]
    means = np.empty(maps.shape[2], np.float32)
    for group in range(groups):
        for y in range(height - 2):
            above, here, below = maps[group, 2 * y], maps[group, 2 * y + 1], maps[group, 2 * y + 2]
            for x in range(len(means)):
                means[x] = outer * (above[x] * above[x] + below[x] * below[x]) + middle * (here[x] * here[x])
            out = target[group, y + 1, pack : length - pack]
            for x in range(0, len(out), pack):
                left, centre = means[2 * x : 2 * x + pack], means[2 * x + pack : 2 * x + 2 * pack]
                right, root = means[2 * x + 2 * pack : 2 * x + 3 * pack], out[x : x + pack]
                for p in range(pack):
                    root[p] = np.sqrt(outer * (left[p] + right[p]) + middle * centre[p] + epsilon)


@compiled(nogil=True, error_model="numpy")
def unpool(pooled, first, target, pack):  # type: ignore[no-untyped-def]
    """Every pixel of rows from `first` on into 2 x 2 pixels of a frame; 0 into those that the pooling left out."""
    groups, height, width = pooled.shape
    for group in range(groups):
        for y in range(2 * height):
            out = target[group, 2 * first + y + 1, pack:-pack]
            for x in range(0, width, pack):
                above = pooled[group, y // 2, x : x + pack]
                left, right = out[2 * x : 2 * x + pack], out[2 * x + pack : 2 * x + 2 * pack]
                for p in range(pack):
                    left[p] = above[p]
                    right[p] = above[p]
            out[2 * width :] = 0
        if 2 * (first + height) == target.shape[1] - 3:
            target[group, -2] = 0


@compiled(nogil=True, error_model="numpy")
def mask(maps, codes, least, slopes, first, rows, target, pack):  # type: ignore[no-untyped-def]
    """Into rows of a frame: of maps, or of the rows, what has a code of at least `least`; and slopes with any code."""
    groups, _, width = codes.shape
    zero = np.float32(0)
    for group in range(groups):
        for y in range(rows):
            out, code = target[group, first + y + 1, pack : pack + width], codes[group, first + y]
            source = maps[group, y] if maps.size else out
            if slopes.size:
                slope = slopes[group, y]
                for x in range(width):
                    above, added = source[x], slope[x]
                    out[x] = (above if code[x] >= least else zero) + (added if code[x] > 0 else zero)
            else:
                for x in range(width):
                    above = source[x]
                    out[x] = above if code[x] >= least else zero
