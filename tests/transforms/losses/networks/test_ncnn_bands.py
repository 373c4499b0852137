"""The passes forward and back by ncnn against float64 NumPy, on a small network with every kind of step."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import ncnn
import numpy as np
import pytest

from transforms.losses.networks.backends import ncnn_bands
from transforms.losses.networks.backends.ncnn_bands import BandedNetwork
from transforms.losses.networks.layers import L2_EPSILON, L2_WINDOW, Layer
from transforms.losses.plan import EvaluationError

LAYERS = {
    "relu1_1": Layer("conv1_1"),
    "relu1_2": Layer("conv1_2"),
    "pool1": Layer(pooled=2),
    "relu2_1": Layer("conv2_1"),
    "pool2": Layer(pooled=2),
    "relu3_1": Layer("conv3_1"),
}
CHANNELS = {"conv1_1": (3, 16), "conv1_2": (16, 32), "conv2_1": (32, 64), "conv3_1": (64, 48)}


def weights():
    random = np.random.default_rng(0)
    tensors = {}
    for name, (inputs, channels) in CHANNELS.items():
        kernel = random.standard_normal((3, 3, inputs, channels)) * np.sqrt(2 / (9 * inputs))
        tensors |= {f"{name}.kernel": kernel, f"{name}.bias": random.standard_normal(channels) / 10}
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


TENSORS = weights()


@pytest.fixture(scope="module")
def network():
    return BandedNetwork(LAYERS, TENSORS)


@pytest.fixture
def narrow_bands(monkeypatch):
    """Bands of four rows wherever a layer has more."""
    monkeypatch.setattr(ncnn_bands, "_BAND_BYTES", 1)
    monkeypatch.setattr(ncnn_bands, "_PRODUCTS", 1)


def convolve(maps, kernel):
    height, width, _ = maps.shape
    framed = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
    return sum(framed[y : y + height, x : x + width] @ kernel[y, x] for y in range(3) for x in range(3))


def windows(maps):
    """The 2 x 2 outputs that a pooling sees, [h, w, C, 4]."""
    height, width, channels = maps.shape
    even = maps[: height // 2 * 2, : width // 2 * 2]
    even = even.reshape(height // 2, 2, width // 2, 2, channels)
    return even.transpose(0, 2, 4, 1, 3).reshape(height // 2, width // 2, channels, 4)


def forward(image, layers, table=LAYERS):
    """All outputs up to the deepest of the layers, float64."""
    maps, outputs = image.astype(np.float64), {}
    for name, layer in table.items():
        if layer.convolution:
            kernel, bias = (TENSORS[f"{layer.convolution}.{part}"].astype(np.float64) for part in ("kernel", "bias"))
            maps = np.maximum(convolve(maps, kernel) + bias, 0)
        elif layer.pooling == "l2":
            height, width, _ = maps.shape
            framed = np.pad(maps, ((1, 2), (1, 2), (0, 0))) ** 2
            seen = (framed[y : y + height : 2, x : x + width : 2] for y in range(3) for x in range(3))
            maps = np.sqrt(sum(w * s for w, s in zip(L2_WINDOW.flat, seen, strict=True)) + L2_EPSILON)
        else:
            maps = windows(maps).max(axis=-1)
        outputs[name] = maps
        if layers <= outputs.keys():
            return outputs
    raise AssertionError


def back(outputs, slopes):
    """The gradient to the image, float64."""
    names = list(outputs)
    gradient = np.zeros_like(outputs[names[-1]])
    for name, below in zip(reversed(names), [*reversed(names[:-1]), None], strict=True):
        gradient = gradient + slopes.get(name, 0)
        if convolution := LAYERS[name].convolution:
            kernel = TENSORS[f"{convolution}.kernel"].astype(np.float64)
            gradient = convolve(gradient * (outputs[name] > 0), kernel[::-1, ::-1].transpose(0, 1, 3, 2))
        else:
            seen = np.zeros_like(outputs[below])
            first = windows(outputs[below]).argmax(axis=-1)
            for place in range(4):
                height, width = gradient.shape[:2]
                y, x = divmod(place, 2)
                seen[y : 2 * height : 2, x : 2 * width : 2] = gradient * (first == place)
            gradient = seen
    return gradient


def passes(network, image, layers, run=map, slopes=None):
    """Features, slopes and the gradient for them."""
    height, width = image.shape[:2]
    features = {layer: np.empty(network.shape(layer, height, width), np.float32) for layer in layers}
    codes = np.empty(network.codes(layers, height, width), np.uint8)
    network.forward(image, features, codes, run)
    random = np.random.default_rng(1)
    slopes = slopes or {k: random.standard_normal(maps.shape).astype(np.float32) for k, maps in features.items()}
    gradient = np.empty_like(image)
    network.back(codes, slopes, gradient, run)
    return features, slopes, gradient


def image_of(height, width):
    return np.random.default_rng(2).standard_normal((height, width, 3)).astype(np.float32)


def assert_as_in_numpy(network, image, layers, table=LAYERS):
    features, slopes, gradient = passes(network, image, layers)
    outputs = forward(image, set(layers), table)
    for layer, maps in features.items():
        np.testing.assert_allclose(maps, outputs[layer], rtol=1e-4, atol=1e-5 * outputs[layer].max(), err_msg=layer)
    expected = back(outputs, slopes)
    assert np.linalg.norm(gradient - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("size", "layers"),
    [
        ((1, 1), ("relu1_1",)),
        ((1, 7), ("relu1_2", "relu1_1")),
        ((2, 2), ("pool1",)),
        ((4, 5), ("relu3_1",)),
        ((19, 13), ("relu1_2", "relu2_1", "relu3_1")),
        ((13, 23), ("pool2", "relu2_1")),
        ((16, 40), tuple(LAYERS)),
        ((23, 50), ("relu1_1", "pool1", "relu3_1")),
    ],
)
@pytest.mark.parametrize("bands", ["one", "narrow"])
def test_features_and_gradient_are_numpys(network, request, size, layers, bands):
    if bands == "narrow":
        request.getfixturevalue("narrow_bands")
    assert_as_in_numpy(network, image_of(*size), layers)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 5), (13, 22)])
@pytest.mark.parametrize("bands", ["one", "narrow"])
def test_l2_poolings_are_numpys(request, size, bands):
    if bands == "narrow":
        request.getfixturevalue("narrow_bands")
    table = {name: Layer(pooled=3, pooling="l2") if layer.pooled else layer for name, layer in LAYERS.items()}
    network, image = BandedNetwork(table, TENSORS, back=False), image_of(*size)
    features = {name: np.empty(network.shape(name, *size), np.float32) for name in table}
    network.forward(image, features)
    outputs = forward(image, set(table), table)
    for layer, maps in features.items():
        np.testing.assert_allclose(maps, outputs[layer], rtol=1e-4, atol=1e-5 * outputs[layer].max(), err_msg=layer)


def test_a_processor_with_other_registers(monkeypatch):
    """ncnn then has another number of channels side by side; without packing it is 1, on any processor."""

    def without_packing(net=ncnn.Net):
        made = net()
        made.opt.use_packing_layout = False
        return made

    monkeypatch.setattr(ncnn, "Net", without_packing)
    # The padding at the end of a channel is part of the output then.
    assert_as_in_numpy(BandedNetwork(LAYERS, TENSORS), image_of(19, 13), ("pool1", "relu2_1", "relu3_1"))


def test_the_gradient_is_that_of_the_features(network):
    """Central differences in float64 along random directions; far from kinks, for most of the steps cross none."""
    image, layers = image_of(9, 11), ("relu1_2", "relu3_1")
    outputs = forward(image, set(layers))
    _, slopes, gradient = passes(network, image, layers)
    random = np.random.default_rng(3)
    errors = []
    for _ in range(9):
        direction = random.standard_normal(image.shape)
        sides = (forward(image + step * direction, set(layers)) for step in (1e-6, -1e-6))
        up, down = (sum(np.sum(slopes[k] * side[k]) for k in layers) for side in sides)
        errors.append(abs((up - down) / 2e-6 - np.sum(gradient * direction)))
    scale = np.linalg.norm(back(outputs, slopes))
    assert np.median(errors) < 1e-4 * scale


def test_bits_do_not_depend_on_who_computes_the_bands(network, narrow_bands):
    image, layers = image_of(61, 21), ("relu1_2", "relu3_1")
    alone = passes(network, image, layers)
    with ThreadPoolExecutor(3) as executor:
        features, _, gradient = passes(network, image, layers, executor.map)
    for layer in layers:
        np.testing.assert_array_equal(features[layer], alone[0][layer])
    np.testing.assert_array_equal(gradient, alone[2])


def test_features_are_the_same_without_a_way_back(network):
    image, layers = image_of(18, 17), ("relu1_2", "pool2")
    features, _, _ = passes(network, image, layers)
    again = {layer: np.empty_like(maps) for layer, maps in features.items()}
    network.forward(image, again)
    for layer in layers:
        np.testing.assert_array_equal(again[layer], features[layer])


def test_the_gradient_goes_to_the_first_of_equal_maxima():
    """All outputs for a black picture are the biases."""
    table = {"relu1_1": LAYERS["relu1_1"], "pool1": LAYERS["pool1"]}
    black = np.zeros((6, 9, 3), np.float32)
    assert_as_in_numpy(BandedNetwork(table, TENSORS), black, ("pool1",), table)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ((-100, None), "ncnn failed with code -100 at relu1_1; -100 means that memory ran out"),
        ((0, ncnn.Mat(5, 4, 2)), r"relu1_1 are \(1, 2, 4, 5, 4\), expected \(\d+, \d+, 6, 6, \d+\)"),
    ],
)
def test_a_failure_of_ncnn_is_an_error(network, monkeypatch, outcome, message):
    failing = SimpleNamespace(input=lambda *_: 0, extract=lambda *_: outcome)
    monkeypatch.setattr(network, "_forward", SimpleNamespace(create_extractor=lambda: failing))
    with pytest.raises(EvaluationError, match=message):
        passes(network, image_of(6, 6), ("relu1_1",))
