"""VGG16: every layer against a float64 reference, with the preprocessing of LPIPS and of Keras."""

import numpy as np
import pytest
import tensorflow as tf
from support import reference
from support.pictures import noise, smooth

from transforms.losses.networks import vgg16
from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS, VGG16_LAYERS

pytestmark = pytest.mark.heavy

LPIPS_PREPROCESSING = NETWORKS["vgg16_lpips"].preprocessing
SIZES = [(16, 16), (17, 23), (33, 20)]
INPUTS = {
    "lpips": (LPIPS_PREPROCESSING, reference.lpips_input),
    "keras": (NETWORKS["vgg16_keras"].preprocessing, reference.keras_input),
}


@pytest.fixture(scope="module")
def tensors(lpips_weights):
    return VGG16.load(lpips_weights.read())[0]


def as_images(*pictures):
    """uint8 [H, W, 3] each, to float32 [B, H, W, 3] in [0, 1]."""
    return np.stack(pictures).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("preprocessing", INPUTS)
@pytest.mark.parametrize("size", SIZES)
def test_every_layer_equals_the_float64_reference(tensors, size, preprocessing):
    ours, theirs = INPUTS[preprocessing]
    images = as_images(smooth(*size), noise(1, *size))
    defined = [layer for layer, side in VGG16_LAYERS.items() if min(size) >= side]
    features = TensorFlowNetwork(vgg16.LAYERS, tensors, ours).features(tf.constant(images), defined)
    assert list(features) == defined
    for row, image in enumerate(images):
        expected = reference.vgg16_features(theirs(image.astype(np.float64)), tensors)
        for layer in defined:
            # Rounding errors of float32 grow slowly with the depth: some 1e-6 of the largest feature at relu5_3.
            tolerance = 1e-5 * expected[layer].max()
            np.testing.assert_allclose(features[layer][row], expected[layer], rtol=0, atol=tolerance, err_msg=layer)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("relu1_2", (35, 50, 64)),
        ("pool1", (17, 25, 64)),
        ("relu2_1", (17, 25, 128)),
        ("pool2", (8, 12, 128)),
        ("relu3_3", (8, 12, 256)),
        ("pool3", (4, 6, 256)),
        ("relu4_3", (4, 6, 512)),
        ("pool4", (2, 3, 512)),
        ("relu5_3", (2, 3, 512)),
        ("pool5", (1, 1, 512)),
    ],
)
def test_poolings_halve_with_floor(tensors, layer, shape):
    features = TensorFlowNetwork(vgg16.LAYERS, tensors, LPIPS_PREPROCESSING).features(tf.zeros([3, 35, 50, 3]), [layer])
    assert features[layer].shape == (3, *shape)


@pytest.mark.parametrize(
    ("layers", "convolutions"),
    [(["relu1_1"], 1), (["pool1"], 2), (["relu3_2", "relu1_2"], 6), (LPIPS_LAYERS, 13)],
)
def test_nothing_behind_the_deepest_layer_is_computed(tensors, layers, convolutions):
    network = TensorFlowNetwork(vgg16.LAYERS, tensors, LPIPS_PREPROCESSING)
    graph = tf.function(lambda images: network.features(images, layers), autograph=False)
    concrete = graph.get_concrete_function(tf.TensorSpec([None, None, None, 3]))
    assert [operation.type for operation in concrete.graph.get_operations()].count("Conv2D") == convolutions
    assert set(concrete.structured_outputs) == set(layers)


@pytest.mark.parametrize(("layer", "side"), VGG16_LAYERS.items())
def test_the_smallest_side_leaves_one_pixel(tensors, layer, side):
    images = tf.zeros([1, side, side + 1, 3])
    assert TensorFlowNetwork(vgg16.LAYERS, tensors, LPIPS_PREPROCESSING).features(images, [layer])[layer].shape[1] == 1


def test_bfloat16_features_are_those_of_float32_to_their_precision(tensors):
    images = tf.constant(as_images(smooth(33, 20), noise(1, 33, 20)))
    coarse = TensorFlowNetwork(vgg16.LAYERS, tensors, LPIPS_PREPROCESSING, tf.bfloat16).features(images, LPIPS_LAYERS)
    exact = TensorFlowNetwork(vgg16.LAYERS, tensors, LPIPS_PREPROCESSING).features(images, LPIPS_LAYERS)
    for layer in LPIPS_LAYERS:
        assert coarse[layer].dtype == tf.bfloat16
        # A bfloat16 has 8 bits: 0.4 % a number, and the layers' errors add up.
        tolerance = 0.02 * exact[layer].numpy().max()
        np.testing.assert_allclose(tf.cast(coarse[layer], tf.float32), exact[layer], rtol=0, atol=tolerance)
