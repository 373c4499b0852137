"""Where a loss finds two pictures different: maps that the losses' own definitions, or the reference's, confirm."""

import dataclasses

import numpy as np
import pytest
from support import reference
from support.pictures import degraded

from pipeline.audit.pages.heatmap import MAX_PIXELS, LossMaps, objective_of_run
from transforms.images.pairs import DecodedPair
from transforms.losses.catalog import LOSSES
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.specs import LPIPS_LAYERS
from transforms.losses.plan import Plan
from transforms.losses.protocol import Protocol

pytestmark = pytest.mark.heavy

IDENTITY = {"vgg_layers": LPIPS_LAYERS, "weights": {}}
ON_PIXELS = ("ssim", "ssim_y", "ssim_luma", "flip")


def pair(height=48, width=64):
    generated, target = degraded("noisy", height, width)
    # The upper half is the target itself.
    generated = np.where(np.arange(height)[:, None, None] < height // 2, target, generated)
    return DecodedPair(generated.astype(np.uint8), target)


@pytest.fixture(scope="module")
def maps():
    return LossMaps(ON_PIXELS, IDENTITY)


@pytest.mark.parametrize("name", ON_PIXELS)
def test_means_of_maps_are_the_losses(maps, name):
    images = pair()
    found = maps(name, images)
    assert (found.shape, found.dtype) == ((48, 64), np.float32)
    (value,) = Evaluator(Plan((name,)))(images.generated[None], images.target[None])[name]
    margin = 0 if name == "flip" else 5
    inside = found[margin : 48 - margin, margin : 64 - margin]
    assert found.sum() == pytest.approx(inside.sum())
    assert inside.mean() == pytest.approx(value if name == "flip" else 1 - value, rel=1e-5)
    # The windows of the upper rows lie where the images are equal.
    assert not found[:10].any()
    assert found[30:40].min(axis=0)[10:-10].max() > 0


def test_flip_and_ssim_are_the_reference_at_every_pixel(maps):
    images = pair(32, 40)
    generated, target = (x.astype(np.float64) / 255 for x in (images.generated, images.target))
    np.testing.assert_allclose(maps("flip", images), reference.flip_map(generated, target), rtol=1e-4, atol=1e-6)
    expected = 1 - np.multiply(*reference._ssim_terms(generated, target)).mean(axis=2)
    np.testing.assert_allclose(maps("ssim", images)[5:-5, 5:-5], expected, rtol=1e-3, atol=1e-6)


def test_border_mean_and_mask_are_those_of_the_run(maps):
    images = pair()
    mask = np.zeros((48, 64), bool)
    mask[10:40, 20:60] = True
    masked = dataclasses.replace(images, mask=mask)
    protocol = Protocol(crop_border=3, gt_mean=True, masked=True)
    found = LossMaps(["flip"], IDENTITY | dataclasses.asdict(protocol))("flip", masked)
    assert not found[~mask].any()
    (value,) = Evaluator(Plan(("flip",), protocol=protocol))(
        *(part[None] for part in (images.generated, images.target, mask))
    )["flip"]
    assert found[mask].mean() == pytest.approx(value, rel=1e-5)
    cut = LossMaps(["flip"], IDENTITY | {"crop_border": 3})("flip", images)
    assert not cut[:3].any()
    assert not cut[:, -3:].any()


def test_lpips_at_the_size_of_the_picture(lpips_weights, monkeypatch):
    identity = IDENTITY | {"weights": {"vgg16_lpips": lpips_weights.sha256}}
    images = pair()
    parts = [f"lpips_vgg_{layer}" for layer in LPIPS_LAYERS]
    names = ("lpips_vgg", *parts)
    maps = LossMaps(names, identity)
    found = {name: maps(name, images) for name in names}
    np.testing.assert_allclose(sum(found[name] for name in parts), found["lpips_vgg"], rtol=1e-5)
    evaluator = Evaluator(Plan(names, precision="auto", weights={"vgg16_lpips": lpips_weights}))
    values = evaluator(images.generated[None], images.target[None])
    for name in names:
        # Bilinear by whole factors, a map keeps its mean.
        assert found[name].mean() == pytest.approx(values[name][0], rel=2e-3), name
    shallow = found["lpips_vgg_relu1_2"]
    assert shallow[:20].max() == 0 < shallow[30:].mean()


@pytest.mark.parametrize("size", [(10, 40), (1, MAX_PIXELS + 1)])
def test_there_is_none_for_some_sizes(maps, size):
    image = np.zeros((*size, 3), np.uint8)
    assert maps("ssim", DecodedPair(image, image)) is None


def test_losses_with_maps():
    names = {name for name, loss in LOSSES.items() if loss.map and not loss.part_of}
    assert names == {*ON_PIXELS, "lpips_vgg", "lpips_alex"}


@pytest.mark.parametrize(("masked", "objective"), [(False, "-ms_ssim"), (True, "flip")])
def test_a_masked_run_shows_the_gradient_of_what_can_be_masked(masked, objective):
    identity = {"losses": ["mae", "ms_ssim", "flip"], "objective": None, "masked": masked}
    assert str(objective_of_run(identity)) == objective
