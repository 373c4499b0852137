"""Losses on one pair's planar features against their definitions in TensorFlow, on features made up."""

import numpy as np
import pytest

from transforms.losses import perceptual
from transforms.losses.fused import planar
from transforms.losses.pair import Pair

CHANNELS = {"relu1_2": 64, "relu3_3": 256, "relu5_3": 512}
LOSSES = {"lpips": perceptual.lpips, "feature_mse": perceptual.feature_mse, "style": perceptual.style}
HEADS = {layer: np.random.default_rng(9).random(channels, np.float32) for layer, channels in CHANNELS.items()}


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


# Fewer pixels than a block of the kernel, one more, and many blocks.
@pytest.mark.parametrize("size", [(4, 4), (1 << 2, 257), (61, 47)])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_definition(name, size):
    generated, target = made_up(1, *size), made_up(2, *size)
    expected = LOSSES[name](Pair(None, None, generated, target, HEADS)).numpy()[0]
    value = getattr(planar, name)(as_planar(generated), as_planar(target), HEADS)
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_is_exactly_0_for_equal_features(name):
    features = as_planar(made_up(3, 33, 20))
    copies = {layer: maps.copy() for layer, maps in features.items()}
    assert getattr(planar, name)(features, copies, HEADS) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_not_hidden(name):
    generated, target = made_up(4, 8, 8), made_up(5, 8, 8)
    generated["relu3_3"][0, 1, 1, 7] = np.nan
    assert np.isnan(getattr(planar, name)(as_planar(generated), as_planar(target), HEADS))
