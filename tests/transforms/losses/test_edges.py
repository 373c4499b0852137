"""The losses on edges: what each of them sees and does not see."""

import numpy as np
import pytest
import tensorflow as tf

from transforms.losses import edges
from transforms.losses.pair import Pair


@pytest.fixture
def pairs():
    rng = np.random.default_rng(7)
    return tuple(tf.constant(rng.random((3, 17, 23, 3), dtype=np.float32)) for _ in range(2))


def checkerboard(side):
    board = np.indices((side, side)).sum(axis=0) % 2
    return tf.constant(np.repeat(board[np.newaxis, :, :, np.newaxis], 3, axis=3), tf.float32)


def test_sobel_has_tensorflows_convention(pairs):
    generated, target = (tf.image.sobel_edges(images) for images in pairs)
    axes = [1, 2, 3, 4]
    # Both are sums of six float32 products; ours filters the difference, so the last digits differ.
    np.testing.assert_allclose(
        edges.sobel_l1(Pair(*pairs)), tf.reduce_mean(tf.abs(generated - target), axes), rtol=1e-5
    )
    np.testing.assert_allclose(edges.sobel_l2(Pair(*pairs)), tf.reduce_mean((generated - target) ** 2, axes), rtol=1e-5)


@pytest.mark.parametrize("loss", [edges.sobel_l1, edges.sobel_l2])
def test_sobel_is_blind_to_the_finest_checkerboard(loss):
    assert loss(Pair(checkerboard(8), tf.fill([1, 8, 8, 3], 0.5))).numpy() == 0


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(edges.fd_l1, 2.0), (edges.fd_l2, 2.0), (edges.gdl, 2.0), (edges.tv, 2.0), (edges.multiscale_fd, 2.0)],
)
def test_forward_differences_see_the_finest_checkerboard(loss, expected):
    # Coarser octaves take every second pixel of the board: one colour.
    assert loss(Pair(checkerboard(16), tf.fill([1, 16, 16, 3], 0.5))).numpy() == expected


def test_each_direction_is_averaged_over_its_own_valid_pixels():
    ramp = tf.constant(np.tile(np.arange(3, dtype=np.float32)[:, np.newaxis, np.newaxis] / 4, (1, 1, 5, 3)))
    assert edges.fd_l1(Pair(ramp, tf.zeros([1, 3, 5, 3]))).numpy() == 0.25


def test_gdl_is_blind_to_the_sign_of_an_edge(pairs):
    images = pairs[0]
    np.testing.assert_allclose(edges.gdl(Pair(1 - images, images)), 0, atol=1e-7)
    assert (edges.fd_l1(Pair(1 - images, images)).numpy() > 0.1).all()


def test_tv_does_not_look_at_the_target(pairs):
    generated, target = pairs
    np.testing.assert_array_equal(edges.tv(Pair(generated, target)), edges.tv(Pair(generated, generated)))


@pytest.mark.parametrize(("padding", "shapes"), [("VALID", [(2, 5), (4, 3)]), ("SAME", [(4, 5), (4, 5)])])
def test_filters_go_down_columns_and_across_rows(padding, shapes):
    taps = np.array([1.0, 10.0, 100.0], np.float32)
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    results = [
        function(image[np.newaxis, :, :, np.newaxis], taps, padding)
        for function in (edges.filter_down, edges.filter_across)
    ]
    padded = np.pad(image, 1 if padding == "SAME" else 0)
    down = sum(tap * padded[k : k + shapes[0][0]] for k, tap in enumerate(taps))
    across = sum(tap * padded[:, k : k + shapes[1][1]] for k, tap in enumerate(taps))
    if padding == "SAME":
        down, across = down[:, 1:-1], across[1:-1]
    for result, expected, shape in zip(results, (down, across), shapes, strict=True):
        assert result.shape == (1, *shape, 1)
        np.testing.assert_array_equal(result[0, :, :, 0], expected)


@pytest.mark.parametrize("loss", [edges.sobel_l1, edges.sobel_l2])
def test_sobel_of_one_pixel_is_refused(loss):
    with pytest.raises(tf.errors.InvalidArgumentError):
        loss(Pair(tf.zeros([1, 1, 1, 3]), tf.ones([1, 1, 1, 3])))
