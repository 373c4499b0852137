"""VGG16's features and gradient by ncnn, as a tape sees them, against TensorFlow's."""

from pkgutil import resolve_name

import numpy as np
import pytest
import tensorflow as tf

from transforms.losses.networks.backends import ncnn_gradient
from transforms.losses.networks.backends.ncnn_gradient import NcnnGradientNetwork
from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS
from transforms.losses.plan import EvaluationError

pytestmark = pytest.mark.heavy

ROW = NETWORKS["vgg16_lpips"]
# Three odd pictures.
IMAGES = np.random.default_rng(0).random((3, 35, 51, 3), np.float32)


@pytest.fixture(scope="module")
def arguments(lpips_weights):
    tensors, _ = resolve_name(ROW.load)(lpips_weights.read())
    return resolve_name(ROW.architecture), tensors, ROW.preprocessing


@pytest.fixture(scope="module")
def network(arguments):
    return NcnnGradientNetwork(*arguments)


def gradient_of(features, images, layers):
    """Features, and the gradient of half the sum of their squares."""

    @tf.function(autograph=False)
    def passes(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            maps = features(images, layers)
        return maps, tape.gradient(maps, images, output_gradients=maps)

    maps, gradient = passes(tf.constant(images))
    return {layer: tensor.numpy() for layer, tensor in maps.items()}, gradient.numpy()


@pytest.mark.parametrize("layers", [LPIPS_LAYERS, ("relu2_1",), ("pool3", "relu1_1", "relu4_2")])
def test_features_and_gradient_are_tensorflows(network, arguments, layers):
    expected, expected_gradient = gradient_of(TensorFlowNetwork(*arguments).features, IMAGES, layers)
    found, gradient = gradient_of(network.differentiable_features, IMAGES, layers)
    assert list(found) == list(layers)
    for layer, maps in found.items():
        assert np.linalg.norm(maps - expected[layer]) < 1e-5 * np.linalg.norm(expected[layer]), layer
    # Few outputs and maxima round to the other side of a kink.
    assert np.linalg.norm(gradient - expected_gradient) < 1e-2 * np.linalg.norm(expected_gradient)


def test_a_pass_that_has_no_way_back_gives_the_same_features(network):
    layers = ("relu3_3", "pool1")
    expected, _ = gradient_of(network.differentiable_features, IMAGES, layers)
    for layer, maps in network.features(tf.constant(IMAGES), layers).items():
        np.testing.assert_array_equal(maps, expected[layer])


# More threads than images share the bands of one.
@pytest.mark.parametrize("threads", [1, 8])
def test_bits_depend_on_the_image_alone(network, monkeypatch, threads):
    expected, expected_gradient = gradient_of(network.differentiable_features, IMAGES, LPIPS_LAYERS)
    monkeypatch.setattr(ncnn_gradient, "thread_count", lambda: threads)
    for rows in ([1], [2, 0, 1, 1]):
        found, gradient = gradient_of(network.differentiable_features, IMAGES[rows], LPIPS_LAYERS)
        for layer, maps in found.items():
            np.testing.assert_array_equal(maps, expected[layer][rows])
        np.testing.assert_array_equal(gradient, expected_gradient[rows])


def test_want_of_memory_is_an_error(network, monkeypatch):
    def failing(*_):
        raise EvaluationError("ncnn failed with code -100")

    monkeypatch.setattr(network._network, "_extract", failing)
    with pytest.raises(tf.errors.OpError, match="EvaluationError: ncnn failed with code -100"):
        gradient_of(network.differentiable_features, IMAGES, ("relu1_2",))
