"""The networks by ncnn against those by TensorFlow."""

from pkgutil import resolve_name

import numpy as np
import pytest
import tensorflow as tf
from support.pictures import noise

from transforms.losses.networks.backends.ncnn import NcnnNetwork
from transforms.losses.networks.backends.ncnn_model import describe
from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
from transforms.losses.networks.loaded import planar_on_ncnn
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS
from transforms.losses.plan import BackendError, EvaluationError

pytestmark = pytest.mark.heavy

# Odd sizes, whose channels ncnn pads in memory, and every halving with a remainder; the smallest.
SIZES = {
    "vgg16_lpips": [(32, 32), (47, 35), (63, 95)],
    "vgg16_dists": [(16, 16), (47, 35), (50, 97)],
    "alexnet_lpips": [(31, 31), (31, 47), (34, 65), (36, 90), (63, 46)],
}


@pytest.fixture(scope="module")
def contents(lpips_weights, alexnet_weights):
    """The weights files, by network."""
    vgg16 = lpips_weights.read()
    return {"vgg16_lpips": vgg16, "vgg16_dists": vgg16, "alexnet_lpips": alexnet_weights.read()}


@pytest.fixture(scope="module")
def tensors(contents):
    return {name: resolve_name(NETWORKS[name].load)(content)[0] for name, content in contents.items()}


def of(name, tensors):
    """The arguments of a backend's network."""
    return resolve_name(NETWORKS[name].architecture), tensors[name], NETWORKS[name].preprocessing


def on_ncnn(name, tensors):
    return planar_on_ncnn(NETWORKS[name], tensors[name])


@pytest.fixture(scope="module")
def network(tensors):
    return on_ncnn("vgg16_lpips", tensors)


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_every_layer_is_tensorflows(tensors, name, size):
    image = noise(1, *size)
    # Not in the network's order.
    layers = sorted(resolve_name(NETWORKS[name].architecture), reverse=name == "alexnet_lpips")
    images = tf.constant(image[np.newaxis] / np.float32(255), tf.float32)
    layers = [layer for layer in layers if min(size) >= NETWORKS[name].layers.get(layer, 0)]
    expected = TensorFlowNetwork(*of(name, tensors)).features(images, layers)
    found = on_ncnn(name, tensors).features(image, layers)
    assert set(found) == set(layers)
    for layer, maps in found.items():
        theirs = expected[layer].numpy()[0]
        theirs = theirs.reshape(-1, theirs.shape[-1]).T
        assert (maps.shape, maps.dtype) == (theirs.shape, np.float32), layer
        assert np.linalg.norm(maps - theirs) < 1e-5 * np.linalg.norm(theirs), layer


@pytest.mark.parametrize("level", [0, 255])
def test_l2_pooling_of_nothing_is_the_root_of_its_guard(tensors, level):
    """Channels that are 0 everywhere stay near 0 and positive, as TensorFlow has them."""
    image = np.full((33, 20, 3), level, np.uint8)
    images = tf.constant(image[np.newaxis] / np.float32(255), tf.float32)
    expected = TensorFlowNetwork(*of("vgg16_dists", tensors)).features(images, ["relu5_3"])["relu5_3"].numpy()[0]
    found = on_ncnn("vgg16_dists", tensors).features(image, ["relu5_3"])["relu5_3"]
    np.testing.assert_allclose(found, expected.reshape(-1, 512).T, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize(("name", "size"), [("vgg16_lpips", (47, 35)), ("vgg16_dists", (50, 97))])
@pytest.mark.parametrize(("cut", "behind"), [("pool2", ["relu3_1", "relu5_2"]), ("pool4", ["relu5_3"])])
def test_the_layers_behind_a_cut_can_start_from_its_output(tensors, name, size, cut, behind):
    network = on_ncnn(name, tensors)
    expected = network.features(noise(1, *size), [cut, *behind])
    output = expected.pop(cut).reshape(network.shape(cut, *size))
    found = network.features(output, behind, cut)
    for layer, maps in expected.items():
        np.testing.assert_array_equal(found[layer], maps, err_msg=layer)


@pytest.mark.parametrize("type", [np.uint16, np.float32])
def test_levels_and_floats_give_the_same_features(network, type):
    image = noise(2, 16, 16)
    other = image.astype(np.uint16) * 257 if type is np.uint16 else image / np.float32(255)
    expected, found = (network.features(x, ["relu3_1"])["relu3_1"] for x in (image, other))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(16, 16), (61, 131)])
def test_bands_change_no_bit(tensors, network, size):
    layers, values, preprocessing = of("vgg16_lpips", tensors)
    expected = NcnnNetwork(describe(layers, values), preprocessing).features(noise(6, *size), LPIPS_LAYERS)
    for layer, maps in network.features(noise(6, *size), LPIPS_LAYERS).items():
        np.testing.assert_array_equal(maps, expected[layer], err_msg=layer)


def test_features_are_the_callers_own(network):
    """ncnn works in place and reuses its memory."""
    first = network.features(noise(3, 32, 32), ["relu1_2", "relu5_3"])
    kept = {layer: maps.copy() for layer, maps in first.items()}
    network.features(noise(4, 32, 32), ["relu5_3"])
    for layer, maps in first.items():
        np.testing.assert_array_equal(maps, kept[layer])


def test_a_layer_of_another_shape_is_an_error(tensors):
    model = describe(*of("vgg16_lpips", tensors)[:2])._replace(
        shape=lambda layer, height, width, source: (64, height, width)
    )
    with pytest.raises(EvaluationError, match=r"pool1 is float32\[64, 8, 8\], expected float32\[64, 16, 16\]"):
        NcnnNetwork(model, NETWORKS["vgg16_lpips"].preprocessing).features(noise(5, 16, 16), ["pool1"])


def test_an_unreadable_model_is_an_error(tensors):
    with pytest.raises(BackendError, match="the layers"):
        NcnnNetwork(
            describe(*of("vgg16_lpips", tensors)[:2])._replace(text="nonsense"), NETWORKS["vgg16_lpips"].preprocessing
        )
