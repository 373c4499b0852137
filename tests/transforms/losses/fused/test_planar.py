"""Losses on one pair's planar features against their definitions in TensorFlow, on features made up."""

from functools import reduce

import numpy as np
import pytest
from support.pictures import noise

from transforms.losses import perceptual
from transforms.losses.fused import planar
from transforms.losses.pair import Pair

CHANNELS = {"relu1_2": 64, "relu3_3": 256, "relu5_3": 512}
LOSSES = {name: getattr(perceptual, name) for name in ("lpips", "feature_mse", "style", "dists")}
HEADS = {layer: np.random.default_rng(9).random(channels, np.float32) for layer, channels in CHANNELS.items()}
# DISTS has two weights a channel, also of the image itself.
WEIGHTS = dict.fromkeys(LOSSES, HEADS) | {
    "dists": {
        layer: np.random.default_rng(8).random((2, channels), np.float32) / 500
        for layer, channels in {"image": 3, **CHANNELS}.items()
    }
}


def made_up(seed, height, width):
    """Features [1, h, w, C] as ReLUs leave them: half zeros, a few pixels with nothing else."""
    rng = np.random.default_rng(seed)
    features = {}
    for octave, (layer, channels) in enumerate(CHANNELS.items()):
        maps = np.maximum(rng.normal(0, 10, (1, height >> octave, width >> octave, channels)), 0)
        maps[rng.random(maps.shape[:3]) < 0.1] = 0
        features[layer] = maps.astype(np.float32)
    return features


def as_planar(features):
    return {layer: np.ascontiguousarray(maps.reshape(-1, maps.shape[-1]).T) for layer, maps in features.items()}


def planar_pair(name, images, *features):
    """A pair of images and features as `made_up` makes them, as a kernel sees it."""
    return planar.PlanarPair(*images, *map(as_planar, features), WEIGHTS[name])


def value(name, *parts):
    """The loss of a picture in parts."""
    loss = getattr(planar, name)
    return loss.value(reduce(planar.added, map(loss.sums, parts)), WEIGHTS[name])


def images(*size):
    return [noise(seed, *size) for seed in (6, 7)]


# Fewer pixels than a block of the kernel, one more, and many blocks.
@pytest.mark.parametrize("size", [(4, 4), (1 << 2, 257), (61, 47)])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_definition(name, size):
    features = made_up(1, *size), made_up(2, *size)
    levels = images(*size)
    as_floats = (image[np.newaxis] / np.float32(255) for image in levels)
    expected = LOSSES[name](Pair(*as_floats, *features, WEIGHTS[name])).numpy()[0]
    assert value(name, planar_pair(name, levels, *features)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("type", [np.uint16, np.float32])
def test_dists_is_the_same_of_levels_and_of_floats(type):
    levels = images(33, 20)
    others = [x.astype(np.uint16) * 257 if type is np.uint16 else x / np.float32(255) for x in levels]
    features = made_up(1, 33, 20), made_up(2, 33, 20)
    values = [value("dists", planar_pair("dists", of, *features)) for of in (levels, others)]
    assert values[0] == values[1]


@pytest.mark.parametrize("name", LOSSES)
def test_parts_add_up_to_the_whole(name):
    size = 64, 48
    levels, features = images(*size), (made_up(1, *size), made_up(2, *size))
    whole = value(name, planar_pair(name, levels, *features))
    parts = [
        planar_pair(
            name,
            [image[:, columns] for image in levels],
            *(
                {
                    layer: maps[:, :, columns.start * maps.shape[2] // 48 : columns.stop * maps.shape[2] // 48]
                    for layer, maps in by_layer.items()
                }
                for by_layer in features
            ),
        )
        for columns in (slice(0, 16), slice(16, 48))
    ]
    assert value(name, *parts) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_is_exactly_0_for_equal_features(name):
    features = made_up(3, 33, 20)
    copies = {layer: maps.copy() for layer, maps in features.items()}
    image = noise(6, 33, 20)
    assert value(name, planar_pair(name, (image, image.copy()), features, copies)) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_not_hidden(name):
    generated, target = made_up(4, 8, 8), made_up(5, 8, 8)
    generated["relu3_3"][0, 1, 1, 7] = np.nan
    assert np.isnan(value(name, planar_pair(name, images(8, 8), generated, target)))
