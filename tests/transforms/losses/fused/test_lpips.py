"""The fused LPIPS head against its definition in TensorFlow, on features made up: no network is needed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from transforms.losses import perceptual
from transforms.losses.fused import lpips
from transforms.losses.networks.specs import LPIPS_LAYERS
from transforms.losses.pair import Pair

CHANNELS = dict(zip(LPIPS_LAYERS, (64, 128, 256, 512, 512), strict=True))
SIZES = [(16, 16), (17, 23), (35, 16)]
DTYPES = ["float32", "bfloat16"]


@pytest.fixture(scope="module")
def executor():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture(scope="module")
def heads():
    rng = np.random.default_rng(9)
    return {layer: rng.random(channels, np.float32) for layer, channels in CHANNELS.items()}


def made_up(seed, images, height, width):
    """Features [images, h, w, C] as ReLUs leave them: half zeros, a few pixels with nothing else."""
    rng = np.random.default_rng(seed)
    features = {}
    for octave, (layer, channels) in enumerate(CHANNELS.items()):
        maps = np.maximum(rng.normal(0, 10, (images, height >> octave, width >> octave, channels)), 0)
        maps[rng.random(maps.shape[:3]) < 0.1] = 0
        features[layer] = maps.astype(np.float32)
    return features


def as_tensors(features, dtype):
    return {layer: tf.cast(maps, dtype) for layer, maps in features.items()}


def as_arrays(tensors):
    """float32, or bfloat16 as its bits."""
    is_float32 = next(iter(tensors.values())).dtype == tf.float32
    return {k: (maps if is_float32 else tf.bitcast(maps, tf.uint16)).numpy() for k, maps in tensors.items()}


def values_of(features, heads, executor):
    """LPIPS of every pair, float32 [B]."""
    return sum(lpips.lpips(features, heads, executor).values()).astype(np.float32)


def definition(tensors, heads):
    pairs = len(tensors["relu1_2"]) // 2
    halves = ({layer: maps[half] for layer, maps in tensors.items()} for half in (np.s_[:pairs], np.s_[pairs:]))
    return perceptual.lpips(Pair(None, None, *halves, heads)).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_definition(executor, heads, size, pairs, dtype):
    tensors = as_tensors(made_up(1, 2 * pairs, *size), dtype)
    shares = lpips.lpips(as_arrays(tensors), heads, executor)
    assert [(layer, values.shape) for layer, values in shares.items()] == [(layer, (pairs,)) for layer in LPIPS_LAYERS]
    values = values_of(as_arrays(tensors), heads, executor)
    np.testing.assert_allclose(values, definition(tensors, heads), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_identical_features_are_exactly_0_apart(executor, heads, size, dtype):
    features = {layer: np.concatenate([maps, maps]) for layer, maps in made_up(2, 2, *size).items()}
    assert not values_of(as_arrays(as_tensors(features, dtype)), heads, executor).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_without_features_count_as_the_definition_counts_them(executor, heads, dtype):
    features = made_up(3, 6, 17, 23)
    for maps in features.values():
        maps[[0, 1, 4]] = 0  # the generated image of pairs 0 and 1, the target of pair 1
    tensors = as_tensors(features, dtype)
    values = values_of(as_arrays(tensors), heads, executor)
    np.testing.assert_allclose(values, definition(tensors, heads), rtol=1e-6)
    assert values[0] > 0
    assert values[1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_and_huge_features_are_no_less_exact(executor, heads, dtype):
    features = made_up(4, 4, 16, 16)
    for maps in features.values():
        maps[[0, 2]] *= np.float32(1e-12)
        maps[[1, 3]] *= np.float32(1e15)
    tensors = as_tensors(features, dtype)
    np.testing.assert_allclose(values_of(as_arrays(tensors), heads, executor), definition(tensors, heads), rtol=1e-6)


def test_the_features_are_not_written_to(executor, heads):
    features = made_up(5, 2, 16, 16)
    for maps in features.values():
        maps.flags.writeable = False
    assert values_of(features, heads, executor)[0] > 0
