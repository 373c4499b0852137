"""VGG16 by ncnn against VGG16 by TensorFlow."""

from pkgutil import resolve_name

import numpy as np
import pytest
import tensorflow as tf
from support.pictures import noise

from transforms.losses.networks.backends.ncnn import NcnnNetwork
from transforms.losses.networks.specs import NETWORKS, VGG16_LAYERS
from transforms.losses.networks.vgg16 import Vgg16
from transforms.losses.networks.vgg16_ncnn import vgg16
from transforms.losses.plan import BackendError, EvaluationError

pytestmark = pytest.mark.heavy

PREPROCESSING = NETWORKS["vgg16_lpips"].preprocessing


@pytest.fixture(scope="module")
def tensors(lpips_weights):
    return resolve_name(NETWORKS["vgg16_lpips"].load)(lpips_weights.read())[0]


@pytest.fixture(scope="module")
def network(tensors):
    return NcnnNetwork(vgg16(tensors), PREPROCESSING)


# Odd sizes, whose channels ncnn pads in memory, and every halving with a remainder.
@pytest.mark.parametrize("size", [(32, 32), (47, 35), (63, 95)])
def test_every_layer_is_tensorflows(network, tensors, size):
    image = noise(1, *size)
    # Not in the network's order.
    layers = sorted(VGG16_LAYERS)
    images = tf.constant(image[np.newaxis] / np.float32(255), tf.float32)
    expected = Vgg16(tensors, PREPROCESSING).features(images, layers)
    for layer, maps in network.features(image, layers).items():
        theirs = expected[layer].numpy()[0]
        theirs = theirs.reshape(-1, theirs.shape[-1]).T
        assert (maps.shape, maps.dtype) == (theirs.shape, np.float32), layer
        assert np.linalg.norm(maps - theirs) < 1e-5 * np.linalg.norm(theirs), layer


@pytest.mark.parametrize("type", [np.uint16, np.float32])
def test_levels_and_floats_give_the_same_features(network, type):
    image = noise(2, 16, 16)
    other = image.astype(np.uint16) * 257 if type is np.uint16 else image / np.float32(255)
    expected, found = (network.features(x, ["relu3_1"])["relu3_1"] for x in (image, other))
    np.testing.assert_array_equal(found, expected)


def test_features_are_the_callers_own(network):
    """ncnn works in place and reuses its memory."""
    first = network.features(noise(3, 32, 32), ["relu1_2", "relu5_3"])
    kept = {layer: maps.copy() for layer, maps in first.items()}
    network.features(noise(4, 32, 32), ["relu5_3"])
    for layer, maps in first.items():
        np.testing.assert_array_equal(maps, kept[layer])


def test_a_layer_of_another_shape_is_an_error(tensors):
    model = vgg16(tensors)._replace(shape=lambda layer, height, width: (64, height, width))
    with pytest.raises(EvaluationError, match=r"pool1 is float32\[64, 8, 8\], expected float32\[64, 16, 16\]"):
        NcnnNetwork(model, PREPROCESSING).features(noise(5, 16, 16), ["pool1"])


def test_an_unreadable_model_is_an_error(tensors):
    with pytest.raises(BackendError, match="the layers"):
        NcnnNetwork(vgg16(tensors)._replace(text="nonsense"), PREPROCESSING)
