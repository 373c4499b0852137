"""Large pictures, evaluated in tiles: the numbers of the same pictures in one piece."""

from dataclasses import replace

import numpy as np
import pytest
from support.pictures import noise, smooth

from transforms.losses import bands, evaluate, planar_evaluator, tile_grid
from transforms.losses import plan as plans
from transforms.losses.catalog import LOSSES
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan

ALL = tuple(LOSSES)
ON_PIXELS = tuple(name for name in ALL if not LOSSES[name].network and LOSSES[name].reach is not None)


def pictures(height, width, seed=0):
    """A generated image and two targets, of which one is the same: uint8 [2, H, W, 3]."""
    target = smooth(height, width)
    rng = np.random.default_rng(seed)
    generated = np.clip(target + rng.normal(0, 20, target.shape), 0, 255).astype(np.uint8)
    generated[: height // 2] = np.where(noise(seed, height // 2, width) > 200, 255, generated[: height // 2])
    return np.stack([generated, target]), np.stack([target, target])


# Tiles of so many pixels have cores of about 64 x 64.
PIXELS = (64 + 2 * 96) ** 2


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (64, 64), (65, 63), (200, 130), (7, 3000), (3000, 20), (331, 1), (96, 33)]
)
@pytest.mark.parametrize(("margin", "step"), [(0, 16), (10, 16), (90, 16), (90, 32), (81, 16)])
def test_cores_cover_every_pixel_once(height, width, margin, step):
    seen = np.zeros((1, height, width), int)
    for tile in tile_grid.tiles(height, width, margin, step, PIXELS):
        core = tile.core
        core.of(seen[:, tile.rows, tile.columns])[:] += 1
        for span, before, after, length in (
            (tile.rows, core.top, core.bottom, height),
            (tile.columns, core.left, core.right, width),
        ):
            assert span.start % step == before % step == 0
            assert before >= margin or span.start == 0
            assert after is None or after % step == 0
            # Up to the picture's edge, or the margin behind the core.
            assert span.stop == length or span.stop - span.start - after >= margin
            assert after is not None or span.stop == length
        assert (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start) <= PIXELS
    assert (seen == 1).all()


@pytest.fixture
def small_tiles(monkeypatch):
    """Every picture is large; kernels may take so many bytes for it."""

    def use(kernel_bytes: int = 0) -> None:
        monkeypatch.setattr(plans, "WHOLE_PIXELS", 0)
        monkeypatch.setattr(evaluate, "KERNEL_BYTES", kernel_bytes)
        monkeypatch.setattr(planar_evaluator, "WHOLE_BYTES", 1)
        monkeypatch.setattr(bands, "BAND_BYTES", 1)
        monkeypatch.setattr(bands, "FEWEST_ROWS", 64)
        monkeypatch.setattr(tile_grid, "core_size", lambda *arguments: (96, 96))

    return use


# The last cores are one row and one column of odd sides.
SIZE = (225, 193)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (SIZE, np.uint8),
        (SIZE, np.uint16),
        (SIZE, np.float32),
        ((40, 33), np.uint8),
        ((9, 700), np.uint8),
        ((11, 11), np.uint8),
        ((700, 2), np.uint8),
    ],
)
def test_losses_on_pixels_are_those_of_the_whole(small_tiles, size, kind):
    images = [pixels.astype(kind) for pixels in pictures(*size)]
    if kind is not np.uint8:
        images = [pixels * kind(257) if kind is np.uint16 else pixels / kind(255) for pixels in images]
    evaluator = Evaluator(Plan(ON_PIXELS, parse_objective("mae + 0.5*fd_l1")))
    expected = evaluator(*images)
    small_tiles()
    found = evaluator(*images)
    assert tuple(found) == tuple(name for name in expected if name == "objective" or LOSSES[name].reach is not None)
    for name, values in found.items():
        # Sums of 10^5 terms in another order: to some 10^-7, and twice that where kernels and TensorFlow differ. In one
        # piece a kernel computes SSIM, whose terms TensorFlow rounds near 1.
        atol = 2e-6 if name.startswith("ssim") else 1e-7
        np.testing.assert_allclose(values, expected[name], rtol=3e-6, atol=atol, err_msg=name)
    for name in set(found) & {"mae", "sobel_l1", "gmsd", "ms_ssim", "ssim", "psnr", "ciede2000_p95"}:
        # Exactly, for an identical pair.
        assert found[name][1] == expected[name][1], name


def test_light_kernels_compute_large_pictures_without_tensorflow(small_tiles, monkeypatch):
    images, losses = pictures(*SIZE), ("mae", "mse", "psnr", "sobel_l1", "sobel_l2", "fd_l1", "fd_l2", "gmsd", "ssim")
    expected = Evaluator(Plan(losses))(*images)
    small_tiles(24 * SIZE[0] * SIZE[1])
    monkeypatch.setattr(evaluate, "import_tensorflow", lambda: pytest.fail("TensorFlow is not needed"))
    found = Evaluator(Plan(losses))(*images)
    assert tuple(found) == losses
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("available", [0, 23])
def test_kernels_leave_what_takes_too_much_memory_to_tiles(small_tiles, monkeypatch, available):
    images = pictures(40, 33)
    small_tiles(available * 40 * 33)
    monkeypatch.setattr("transforms.losses.fused.structure.ssim", lambda *images: pytest.fail("it takes 24 bytes"))
    np.testing.assert_array_equal(Evaluator(Plan(("psnr", "ssim")))(*images)["ssim"][1], 1)


def test_what_cannot_be_evaluated_in_tiles_is_absent(small_tiles, monkeypatch):
    monkeypatch.setitem(LOSSES, "ssim", replace(LOSSES["ssim"], reach=None))
    plan = Plan(("mae", "ssim"), parse_objective("mae + ssim"), pixel_gradient=True)
    images = pictures(40, 33)
    assert tuple(Evaluator(plan)(*images)) == tuple(column.name for column in plan.columns)
    small_tiles()
    assert tuple(Evaluator(plan)(*images)) == ("mae",)
    notes = ["too_large:ssim", "too_large:objective", "too_large:pixel_grad_l2"]
    assert [plan.why_null(name, 40, 33) for name in ("ssim", "objective", "pixel_grad_l2")] == notes
    assert plan.why_null("ssim", 10, 10**7) == "too_small:ssim"


def test_gradients_have_a_limit_of_their_own():
    plan = Plan(("mae",), parse_objective("fd_l2"), pixel_gradient=True, max_gradient_pixels=40 * 33)
    assert "pixel_grad_l2" in Evaluator(plan)(*pictures(40, 33))
    assert tuple(Evaluator(plan)(*pictures(40, 34))) == ("mae", "objective")
    assert plan.why_null("pixel_grad_l2", 40, 34) == "too_large:pixel_grad_l2"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("size", "backend"),
    # The last cores are as those of SIZE.
    [((97, 193), "tensorflow"), ((33, 40), "tensorflow"), ((31, 300), "ncnn"), ((120, 201), "ncnn")],
)
def test_losses_on_networks_are_those_of_the_whole(small_tiles, everything_on_networks, size, backend):
    evaluator = everything_on_networks(backend)
    images = pictures(*size)
    expected = evaluator(*images)
    small_tiles()
    found = evaluator(*images)
    assert tuple(found) == tuple(expected)
    for name, values in found.items():
        # Features are good to 1e-6, whichever way a convolution of this size is computed; losses square differences.
        np.testing.assert_allclose(values[0], expected[name][0], rtol=5e-6, err_msg=name)
        assert values[1] == 0, name


@pytest.mark.heavy
def test_bits_on_ncnn_do_not_depend_on_threads_and_memory(small_tiles, monkeypatch, everything_on_networks):
    small_tiles()
    images = [picture[:1] for picture in pictures(33, 150)]
    plan = everything_on_networks("ncnn").plan
    networks = Networks(plan)
    found = []
    for threads, available in ((3, 2**40), (3, 0)):
        monkeypatch.setattr(planar_evaluator, "thread_count", lambda threads=threads: threads)
        monkeypatch.setattr(planar_evaluator, "available_memory", lambda available=available: available)
        found.append(Evaluator(plan, networks)(*images))
    for name, values in found[0].items():
        np.testing.assert_array_equal(found[1][name], values, err_msg=name)


@pytest.fixture(scope="module")
def everything_on_networks(lpips_weights, alexnet_weights):
    weights = {"vgg16_lpips": lpips_weights, "vgg16_dists": lpips_weights, "alexnet_lpips": alexnet_weights}
    losses = tuple(name for name in ALL if LOSSES[name].network in weights)
    plan = Plan(losses, vgg_layers=("relu1_1", "pool2", "pool5"), weights=weights)
    made = {}

    def evaluator(backend: str) -> Evaluator:
        if backend not in made:
            made[backend] = Evaluator(replace(plan, backend=backend))
        return made[backend]

    return evaluator
