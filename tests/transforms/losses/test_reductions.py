"""Reductions within a mask: every loss that can be masked against an independent definition, whole and in tiles."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support import reference
from support.as_gpu import AS_GPU
from support.hostile import KINDS, allowed_error, as_floats, hostile_pair
from support.pictures import degraded

from transforms.losses import plan as plans
from transforms.losses import tile_grid
from transforms.losses.catalog import LOSSES
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.networks.lpips_weights import ALEXNET, VGG16
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.plan import EvaluationError, Plan
from transforms.losses.protocol import Protocol
from transforms.losses.reductions import Reductions, positions_in, share_in

pytestmark = pytest.mark.heavy

MASKED = Protocol(masked=True)
ON_PIXELS = tuple(name for name, loss in LOSSES.items() if loss.maskable and not loss.network)
# They compare pixel with pixel: nothing outside of the mask has a part in them.
POINTWISE = ("mae", "mse", "psnr", "psnr_y", "charbonnier", "fd_l1", "fd_l2", "gdl", "multiscale_fd", "tv", "ciede2000")
SIZE = 43, 38


def pairs(kinds, height, width):
    generated, target = zip(*(degraded(kind, height, width) for kind in kinds), strict=True)
    return np.stack(generated).astype(np.uint8), np.stack(target)


def masks(height, width):
    """A blob, half of the picture with holes, and everything: bool [3, H, W]."""
    rows, columns = np.mgrid[:height, :width]
    blob = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (min(height, width) / 3) ** 2
    holes = (columns < width * 0.7) & (np.random.default_rng(1).random((height, width)) > 0.1)
    return np.stack([blob, holes, np.ones((height, width), bool)])


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(Plan(ON_PIXELS, protocol=MASKED))


@pytest.fixture(scope="module")
def images():
    return pairs(["noisy", "shifted", "unrelated"], *SIZE)


def test_the_maskable_losses():
    assert set(LOSSES) - {name for name, loss in LOSSES.items() if loss.maskable} == {
        *("ms_ssim", "ssimulacra2", "dists", "vgg_mse", "style", "vgg_mse_keras", "style_keras")
    }
    assert {LOSSES[name].network for name in LOSSES if LOSSES[name].maskable} == {"", "vgg16_lpips", "alexnet_lpips"}


def float64_pairs(images):
    return [[(side / np.float32(255)).astype(np.float64) for side in pair] for pair in zip(*images, strict=True)]


@pytest.fixture(scope="module")
def expected(images):
    """By name, of the three pairs."""
    rows = list(zip(float64_pairs(images), masks(*SIZE), strict=True))
    return {name: [reference.masked(name, *pair, mask) for pair, mask in rows] for name in ON_PIXELS}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_equal_the_float64_reference(evaluator, images, expected, dtype):
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    mask = masks(*SIZE)
    columns = evaluator(*((pictures.astype(np.float64) * scale).astype(dtype) for pictures in images), mask)
    np.testing.assert_allclose(columns["mask_coverage"], mask.mean(axis=(1, 2)), rtol=1e-7)
    for name in ON_PIXELS:
        np.testing.assert_allclose(columns[name], expected[name], rtol=3e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_pictures_keep_their_digits(evaluator, kind):
    pictures, mask = hostile_pair(kind, 12, 300), masks(12, 300)[1]
    generated, target = (as_floats(image).astype(np.float64) for image in pictures)
    columns = evaluator(*(image[np.newaxis] for image in pictures), mask[np.newaxis])
    for name in ON_PIXELS:
        # MATLAB's rgb2gray is of 8 bits: the reference rounds others first.
        if name not in ("gmsd", "ssim_luma") or pictures[0].dtype == np.uint8:
            exact = reference.masked(name, generated, target, mask)
            assert columns[name][0] == pytest.approx(exact, rel=0, abs=allowed_error(name, exact)), name


def test_the_moments_of_flat_maps_keep_their_digits():
    """As of the features of a flat picture, which differ at its border: DISTS was off by 3e-4."""
    maps = np.full((1, 120, 200, 2), 7.3, np.float32)
    maps[:, 0] += np.float32(0.01)
    mean, squares, pixels = Reductions().moments(tf.constant(maps))
    exact = maps.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=(1, 2)), rtol=1e-7)
    np.testing.assert_allclose(squares, exact.var(axis=(1, 2)) * 120 * 200, rtol=1e-5)
    assert pixels == 120 * 200


def test_a_mask_of_everything_changes_nothing(images, expected):
    """So says the reference, which the losses equal."""
    pair = float64_pairs(images)[2]
    for name in ON_PIXELS:
        np.testing.assert_allclose(expected[name][2], getattr(reference, name)(*pair), rtol=1e-12, err_msg=name)


def test_what_lies_outside_has_no_part_in_losses_of_pixels(evaluator, images):
    mask = masks(*SIZE)
    outside = np.random.default_rng(2).integers(0, 256, images[0].shape).astype(np.uint8)
    generated = np.where(mask[..., np.newaxis], images[0], outside)
    expected, found = evaluator(*images, mask), evaluator(generated, images[1], mask)
    for name in POINTWISE:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_an_identical_pair_has_its_ideal_value(evaluator, images):
    columns = evaluator(images[1], images[1], masks(*SIZE))
    ideal = {"psnr": np.inf, "psnr_y": np.inf, "ssim": 1, "ssim_y": 1, "ssim_luma": 1}
    for name in set(ON_PIXELS) - {"tv"}:
        if name == "charbonnier":
            np.testing.assert_allclose(columns[name], 0.001, rtol=1e-6)
        else:
            np.testing.assert_array_equal(columns[name], ideal.get(name, 0), err_msg=name)


def test_batch_mates_do_not_matter(evaluator, images):
    mask = masks(*SIZE)
    together = evaluator(*images, mask)
    for row in range(len(mask)):
        for name, values in evaluator(*(part[[row]] for part in images), mask[[row]]).items():
            np.testing.assert_allclose(values, together[name][[row]], rtol=1e-6, err_msg=name)


def test_a_gpu_gets_filled_batches_of_masks_too(evaluator, images):
    plan = Plan(("mae", "ssim", "flip"), protocol=MASKED)
    mask = masks(*SIZE)
    found = Evaluator(plan, Networks(plan, AS_GPU))(*images, mask)
    expected = evaluator(*images, mask)
    assert tuple(found) == (*plan.losses, "mask_coverage")
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, err_msg=name)


def test_a_loss_that_compares_nothing_within_the_mask_is_nan(evaluator, images):
    mask = np.zeros((3, *SIZE), bool)
    mask[:, 2, 2] = True
    columns = evaluator(*images, mask)
    undefined = {name for name in ON_PIXELS if np.isnan(columns[name]).all()}
    # One pixel has no difference to a neighbour, no deviation, and no window of SSIM around it.
    assert undefined == {"fd_l1", "fd_l2", "gdl", "multiscale_fd", "tv", "gmsd", "ssim", "ssim_y", "ssim_luma"}
    assert all(np.isfinite(columns[name]).all() for name in set(ON_PIXELS) - undefined)
    assert evaluator.plan.why_null("ssim", *SIZE) == "outside_mask:ssim"


def test_border_and_mean_matching_go_by_the_mask():
    images = pairs(["noisy"], 49, 44)
    mask = masks(49, 44)[:1]
    inside = (slice(None), slice(3, -3), slice(3, -3))
    plan = Plan(("mae", "ssim", "mse"), protocol=dataclasses.replace(MASKED, crop_border=3, gt_mean=True))
    columns = Evaluator(plan)(*images, mask)
    generated, target = (pictures[inside][0] / 255 for pictures in images)
    mask = mask[inside][0]
    ratio = (target[mask] @ [0.299, 0.587, 0.114]).mean() / (generated[mask] @ [0.299, 0.587, 0.114]).mean()
    for name in plan.losses:
        expected = reference.masked(name, np.clip(generated * ratio, 0, 1), target, mask)
        np.testing.assert_allclose(columns[name], expected, rtol=3e-6, err_msg=name)
    np.testing.assert_allclose(columns["mask_coverage"], mask.mean(), rtol=1e-7)
    assert plan.columns[0].formula == (
        "mean |d|; without 3 pixels at each border; generated scaled to the mean gray of its target; "
        "over the pixels in the mask"
    )


def test_the_pixel_gradient_ends_at_the_mask(images):
    plan = Plan(("mae",), parse_objective("mse + 0.1*fd_l2"), pixel_gradient=True, protocol=MASKED)
    mask = masks(*SIZE)
    columns = Evaluator(plan)(*images, mask)
    function = ObjectiveFunction(plan)
    generated, target = (tf.constant(pictures / np.float32(255)) for pictures in images)
    _, gradient, _ = function.value_and_gradient(generated, function.references(target, mask))
    assert not gradient.numpy()[~mask].any()
    np.testing.assert_allclose(columns["pixel_grad_l2"], np.sqrt((gradient.numpy() ** 2).sum((1, 2, 3))), rtol=1e-5)
    count = 3 * mask[0].sum()
    alone = ObjectiveFunction(Plan((), parse_objective("mse"), protocol=MASKED))
    _, gradient, _ = alone.value_and_gradient(generated, alone.references(target, mask))
    residual = (images[0][0] - images[1][0].astype(np.float64)) / 255 * mask[0, ..., np.newaxis]
    np.testing.assert_allclose(gradient[0], 2 * residual / count, rtol=1e-4, atol=1e-9)


def test_a_mask_and_a_masked_protocol_belong_together(evaluator, images):
    for one, mask in ((evaluator, None), (Evaluator(Plan(("mae",))), masks(*SIZE)), (evaluator, masks(20, 20))):
        with pytest.raises(EvaluationError, match="mask"):
            one(*images, mask)
    function = ObjectiveFunction(Plan((), parse_objective("mse"), protocol=MASKED))
    with pytest.raises(ValueError, match="a mask belongs to a masked protocol"):
        function.references(tf.zeros([1, 9, 9, 3]))


def test_losses_without_a_mask_are_null():
    plan = Plan(("dists", "ms_ssim"), protocol=MASKED)
    assert plan.computed(300, 300) == ()
    assert [plan.why_null(name, 300, 300) for name in plan.losses] == ["unmaskable:dists", "unmaskable:ms_ssim"]
    assert plan.columns[1].formula == f"{LOSSES['ms_ssim'].formula}; null, because no mask can be applied"
    assert plan.columns[-1].name == "mask_coverage"


@pytest.fixture(scope="module")
def weights(lpips_weights, alexnet_weights):
    return {"vgg16_lpips": lpips_weights, "alexnet_lpips": alexnet_weights}


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("lpips_vgg", (33, 20), reference.vgg16_features),
        ("lpips_alex", (53, 66), reference.alexnet_features),
    ],
)
def test_lpips_weighs_its_positions_by_their_share(weights, name, size, features):
    network = LOSSES[name].network
    tensors, heads = {"vgg16_lpips": VGG16, "alexnet_lpips": ALEXNET}[network].load(weights[network].read())
    generated, target = pairs(["noisy", "shifted"], *size)
    mask = masks(*size)[1:]
    plan = Plan((name,), weights={network: weights[network]}, protocol=MASKED, backend="ncnn")
    evaluator = Evaluator(plan)
    assert evaluator.backend == plan.with_backend().backend == "tensorflow"
    columns = evaluator(generated, target, mask)
    for row in range(2):
        maps = reference.lpips_maps(
            *(features(reference.lpips_input(x[row] / 255), tensors) for x in (generated, target)), heads
        )
        expected = reference.masked_lpips(maps, NETWORKS[network].strides, mask[row])
        np.testing.assert_allclose(columns[name][row], expected, rtol=2e-5)
    whole = Evaluator(dataclasses.replace(plan, protocol=Protocol()))(generated, target)
    np.testing.assert_allclose(columns[name][1], whole[name][1], rtol=2e-6)
    np.testing.assert_array_equal(evaluator(target, target, mask)[name], 0)


@pytest.mark.parametrize("size", [(129, 113)])
def test_tiles_give_the_same(weights, monkeypatch, size):
    evaluator = Evaluator(Plan((*ON_PIXELS, "lpips_vgg", "lpips_alex"), weights=weights, protocol=MASKED))
    images, mask = pairs(["noisy", "shifted", "noisy"], *size), masks(*size)
    mask[2] = False
    mask[2, 7:16, 9:18] = True
    expected = evaluator(*images, mask)
    monkeypatch.setattr(plans, "WHOLE_PIXELS", 0)
    monkeypatch.setattr(tile_grid, "core_size", lambda *arguments: (96, 96))
    found = evaluator(*images, mask)
    assert tuple(found) == tuple(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=5e-6, atol=2e-6, err_msg=name)


def test_positions_of_windows_lie_where_their_middle_does():
    mask = np.zeros((1, 9, 8), bool)
    mask[0, 3:6, 2:7] = True

    def inside(height, width, stride=1):
        return np.argwhere(positions_in(mask, np.zeros((1, height, width)), stride)[0]).tolist()

    assert inside(9, 8) == np.argwhere(mask[0]).tolist()
    assert inside(7, 6) == (np.argwhere(mask[0]) - 1).tolist()
    # Between rows 3 and 4, and 4 and 5.
    assert inside(8, 8) == [[y, x] for y in (3, 4) for x in range(2, 7)]
    assert inside(5, 4, stride=2) == [[2, 1], [2, 2], [2, 3]]


def test_blocks_at_the_edge_count_by_the_pixels_they_have():
    mask = np.zeros((1, 5, 6), bool)
    mask[0, 3:, 2:] = True
    np.testing.assert_allclose(share_in(mask, np.zeros((1, 2, 2)), 4)[0], [[2 / 16, 2 / 8], [2 / 4, 1]])
    # VGG16 has no position for the last pixels.
    np.testing.assert_allclose(share_in(mask, np.zeros((1, 1, 1)), 4)[0], [[2 / 16]])
