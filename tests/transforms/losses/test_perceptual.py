"""The losses on networks' features, with the published weights."""

import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from support import reference
from support.pictures import degraded, noise, smooth

from benchmarks.lpips_reference import reference_pairs
from transforms.losses import perceptual
from transforms.losses.catalog import LOSSES as CATALOG
from transforms.losses.catalog import parts_of
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS
from transforms.losses.networks.vgg16_dists import DISTS_FILE
from transforms.losses.pair import Pair
from transforms.losses.plan import Plan
from transforms.losses.reductions import Reductions

pytestmark = pytest.mark.heavy

LOSSES = {"lpips_vgg": perceptual.lpips, "vgg_mse": perceptual.feature_mse, "style": perceptual.style}
# Sizes at which each loss is defined, the smallest first.
SIZES = {
    "vgg16_lpips": [(16, 16), (17, 23), (33, 20)],
    "alexnet_lpips": [(31, 31), (31, 47), (34, 65), (48, 39)],
    "vgg16_dists": [(16, 16), (17, 23), (33, 20)],
}
NAMES = (*LOSSES, "lpips_alex", "dists")
CASES = [(name, size) for name in NAMES for size in SIZES[CATALOG[name].network]]
REFERENCE = Path(__file__).parents[2] / "data" / "lpips_reference.json"
ORIGINAL = json.loads(REFERENCE.read_text(encoding="utf-8"))["cases"]
PAIRS = {pair.name: pair for pair in reference_pairs()}
FEATURES_IN_FLOAT64 = {
    "vgg16_lpips": reference.vgg16_features,
    "alexnet_lpips": reference.alexnet_features,
    "vgg16_dists": functools.partial(reference.vgg16_features, pool=reference.l2_pool),
}


def odd_size(name):
    return SIZES[CATALOG[name].network][1]


class Networks:
    """The losses as functions of images, as the package and as the reference compute them."""

    def __init__(self, **weights):
        self.tensors, self.heads, self.networks = {}, {}, {}
        for name, content in weights.items():
            row = NETWORKS[name]
            self.tensors[name], self.heads[name] = resolve_name(row.load)(content)
            layers = resolve_name(row.architecture)
            self.networks[name] = TensorFlowNetwork(layers, self.tensors[name], row.preprocessing)
        self._reference_features = {}

    def loss(self, name, generated, target):
        """[B] of float32 tensors [B, H, W, 3]."""
        network, layers = CATALOG[name].network, CATALOG[name].layers or LPIPS_LAYERS
        features = (self.networks[network].features(images, layers) for images in (generated, target))
        return resolve_name(CATALOG[name].function)(Pair(generated, target, *features, self.heads[network]))

    def reference(self, name, generated, target):
        """One number, of float64 arrays [H, W, 3]."""
        network = CATALOG[name].network
        features = (self._features_in_float64(network, image) for image in (generated, target))
        if name == "dists":
            published = safetensors.numpy.load_file(DISTS_FILE)
            stages = (
                [image, *map(maps.get, LPIPS_LAYERS)] for image, maps in zip((generated, target), features, strict=True)
            )
            return reference.dists(*stages, *(published[k].astype(np.float64) for k in ("alpha", "beta")))
        if name.startswith("lpips"):
            return reference.lpips(*features, self.heads[network])
        return getattr(reference, name)(*features, LPIPS_LAYERS)

    def _features_in_float64(self, network, image):
        # They take most of the time, and most images serve several losses and pairs.
        key = network, image.shape, image.tobytes()
        if key not in self._reference_features:
            features = FEATURES_IN_FLOAT64[network](reference.lpips_input(image), self.tensors[network])
            self._reference_features[key] = features
        return self._reference_features[key]

    def gradient(self, name, generated, target):
        """Value [B] and gradient [B, H, W, 3] to the generated images, of float32 arrays [B, H, W, 3]."""
        generated = tf.constant(generated)
        with tf.GradientTape() as tape:
            tape.watch(generated)
            values = self.loss(name, generated, tf.constant(target))
        return values.numpy(), tape.gradient(values, generated).numpy()


@pytest.fixture(scope="module")
def networks(lpips_weights, alexnet_weights):
    vgg16 = lpips_weights.read()
    return Networks(vgg16_lpips=vgg16, alexnet_lpips=alexnet_weights.read(), vgg16_dists=vgg16)


@pytest.fixture(scope="module")
def on_ncnn(lpips_weights, alexnet_weights):
    weights = {"vgg16_lpips": lpips_weights, "vgg16_dists": lpips_weights, "alexnet_lpips": alexnet_weights}
    return Evaluator(Plan(NAMES, weights=weights, backend="ncnn"))


@functools.cache
def pair(kind, height, width):
    """Generated and target image [H, W, 3], float32 in [0, 1]."""
    return tuple(np.rint(image).astype(np.float32) / np.float32(255) for image in degraded(kind, height, width))


@pytest.mark.parametrize("kind", ["unrelated", "shifted", "noisy", "almost identical"])
@pytest.mark.parametrize(("name", "size"), CASES)
def test_equals_the_float64_reference(networks, name, size, kind):
    generated, target = pair(kind, *size)
    value = networks.loss(name, generated[np.newaxis], target[np.newaxis]).numpy()
    assert value.shape == (1,)
    expected = networks.reference(name, generated.astype(np.float64), target.astype(np.float64))
    # Features are good to 1e-6 or so of their size. For almost identical pairs their difference is a hundredth of
    # that, but errors of thousands of numbers average out: 2e-6 is the worst seen. AlexNet's maps have few pixels to
    # average over, and its distance of such a pair is 2e-4: 5e-9 is the worst seen.
    assert value[0] == pytest.approx(expected, rel=1e-5, abs=1e-8 if name == "lpips_alex" else 0)


@pytest.mark.parametrize("case", ORIGINAL, ids=[f"{case['loss']}-{case['name']}" for case in ORIGINAL])
def test_lpips_equals_the_original_implementation(networks, case):
    pair = PAIRS[case["name"]]
    assert pair.sha256 == case["sha256"], "not the pixels the original scored"
    images = ((image[np.newaxis] / np.float32(255)).astype(np.float32) for image in (pair.generated, pair.target))
    (value,), gradient = networks.gradient(case["loss"], *images)
    # The stored numbers are of float64. The pair that differs by one level in one pixel is all cancellation: there
    # the original's own float32 is 2e-5 off. Hence the absolute terms; other pairs are 1e-2 and more.
    assert value == pytest.approx(case["value"], rel=1e-5, abs=1e-10)
    assert np.linalg.norm(gradient) == pytest.approx(case["gradient_l2"], rel=1e-5, abs=1e-7)


@pytest.fixture(scope="module")
def lpips_on_ncnn(lpips_weights, alexnet_weights):
    """Both distances, by the name of a pair of `PAIRS`."""
    weights = {"vgg16_lpips": lpips_weights, "alexnet_lpips": alexnet_weights}
    evaluator = Evaluator(Plan(("lpips_vgg", "lpips_alex"), weights=weights, backend="ncnn"))
    return functools.cache(lambda name: evaluator(PAIRS[name].generated[np.newaxis], PAIRS[name].target[np.newaxis]))


@pytest.mark.parametrize("case", ORIGINAL, ids=[f"{case['loss']}-{case['name']}" for case in ORIGINAL])
def test_lpips_on_ncnn_equals_the_original_implementation(lpips_on_ncnn, case):
    (value,) = lpips_on_ncnn(case["name"])[case["loss"]]
    assert value == pytest.approx(case["value"], rel=0, abs=1e-6)


@pytest.mark.parametrize("backend", ["tensorflow", "ncnn"])
@pytest.mark.parametrize("name", ["lpips_vgg", "lpips_alex"])
def test_the_parts_of_lpips_are_those_of_the_float64_reference(networks, lpips_weights, alexnet_weights, name, backend):
    parts, network = parts_of(name), CATALOG[name].network
    weights = {"vgg16_lpips": lpips_weights, "alexnet_lpips": alexnet_weights}
    plan = Plan((name, *(part.name for part in parts)), weights={network: weights[network]}, backend=backend)
    generated, target = (np.stack([image, image]) for image in pair("noisy", *odd_size(name)))
    target[1] = generated[1]
    columns = Evaluator(plan)(generated, target)
    images = [image[0].astype(np.float64) for image in (generated, target)]
    features = [FEATURES_IN_FLOAT64[network](reference.lpips_input(x), networks.tensors[network]) for x in images]
    for part in parts:
        (layer,) = part.layers
        expected = reference.lpips(*features, {layer: networks.heads[network][layer]})
        np.testing.assert_allclose(columns[part.name], [expected, 0], rtol=2e-5, err_msg=part.name)
    total = sum(columns[part.name].astype(np.float64) for part in parts)
    # Each number is rounded to float32, and TensorFlow adds them up in float32.
    np.testing.assert_allclose(columns[name], total, rtol=3e-7)


@pytest.mark.parametrize("kind", ["unrelated", "shifted", "noisy", "almost identical"])
@pytest.mark.parametrize("size", [*SIZES["vgg16_lpips"], *SIZES["alexnet_lpips"]])
def test_ncnn_equals_the_float64_reference(networks, on_ncnn, size, kind):
    generated, target = pair(kind, *size)
    values = on_ncnn(generated[np.newaxis], target[np.newaxis])
    assert set(values) == {name for name in NAMES if name != "lpips_alex" or min(size) >= 31}
    for name in values:
        expected = networks.reference(name, generated.astype(np.float64), target.astype(np.float64))
        # Winograd's transforms cost a few more roundings. DISTS divides by variances, which a few pixels hardly have.
        least = {"lpips_alex": 1e-8, "dists": 1e-6}.get(name, 0)
        assert values[name][0] == pytest.approx(expected, rel=2e-5, abs=least), name
        if name in ("lpips_vgg", "lpips_alex", "dists"):
            assert values[name][0] == pytest.approx(expected, rel=0, abs=1e-6), name


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_central_differences_of_the_reference(networks, name):
    generated, target = pair("noisy", *odd_size(name))
    _, (gradient,) = networks.gradient(name, generated[np.newaxis], target[np.newaxis])
    gradient = gradient.astype(np.float64)
    rng = np.random.default_rng(5)
    # In float64 a step this small crosses hardly a ReLU's kink, and still leaves the difference 8 digits; float32
    # values would need a step that crosses thousands.
    step = 1e-7
    for direction in (np.sign(gradient), rng.normal(size=target.shape), rng.normal(size=target.shape)):
        ahead, behind = (
            networks.reference(name, generated + s * direction, target.astype(np.float64)) for s in (step, -step)
        )
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        # The float32 gradient has 5 digits or so, that of DISTS 4: channels that are almost 0 everywhere weigh as much
        # as the others, and the rounding errors of the layers before are large next to them.
        tolerance = (1e-4 if name == "dists" else 2e-5) * scale
        assert np.vdot(gradient, direction) == pytest.approx((ahead - behind) / (2 * step), abs=tolerance)


@pytest.mark.parametrize("image", ["noise", "smooth", "black", "gray", "white"])
@pytest.mark.parametrize("name", NAMES)
def test_an_identical_pair_scores_exactly_0_and_pulls_nowhere(networks, name, image):
    size = odd_size(name)
    images = {
        "noise": noise(3, *size),
        "smooth": smooth(*size),
        "black": np.zeros((*size, 3)),
        "gray": np.full((*size, 3), 119),
        "white": np.full((*size, 3), 255),
    }[image].astype(np.float32)[np.newaxis] / np.float32(255)
    value, gradient = networks.gradient(name, images, images)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("levels", [(0, 255), (255, 0), (119, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_flat_images_are_told_apart_with_a_finite_gradient(networks, name, levels):
    generated, target = (np.full((1, *odd_size(name), 3), level / 255, np.float32) for level in levels)
    value, gradient = networks.gradient(name, generated, target)
    assert value > 0
    assert np.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_upside_down_is_another_image(networks, name):
    _, target = pair("shifted", 65, 40)
    assert networks.loss(name, target[np.newaxis, ::-1], target[np.newaxis]) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_do_not_matter(networks, name):
    pairs = [pair(kind, *odd_size(name)) for kind in ("unrelated", "noisy", "almost identical")]
    together, gradients = networks.gradient(name, *map(np.stack, zip(*pairs, strict=True)))
    assert together.dtype == np.float32
    for row, (generated, target) in enumerate(pairs):
        (alone,), (gradient,) = networks.gradient(name, generated[np.newaxis], target[np.newaxis])
        assert together[row] == pytest.approx(alone, rel=1e-5)
        np.testing.assert_allclose(gradients[row], gradient, rtol=0, atol=1e-5 * np.abs(gradient).max())


def made_up(*rows, channels=4):
    """Features of one layer [B, 1, 2, C], float32; each row gives the level of its two pixels."""
    levels = np.array(rows, np.float32).reshape(len(rows), 1, 2, 1)
    return {"relu1_2": tf.constant(levels * np.arange(1, channels + 1, dtype=np.float32))}


def made_up_loss(name, generated, target):
    heads = {"relu1_2": np.array([1, 0, 2, 3], np.float32)}
    return LOSSES[name](Pair(None, None, generated, target, heads))


def test_values_by_hand():
    generated, target = made_up([1, 0], [2, 0]), made_up([0, 0], [1, 1])
    squares = np.arange(1, 5) ** 2
    # LPIPS sees directions: against nothing, a unit vector; against the same direction, 0.
    half_unit = (squares * [1, 0, 2, 3]).sum() / 30 / 2
    np.testing.assert_allclose(made_up_loss("lpips_vgg", generated, target), [half_unit, half_unit], rtol=1e-6)
    np.testing.assert_allclose(made_up_loss("vgg_mse", generated, target), [30 / 8, 2 * 30 / 8], rtol=1e-6)
    outer_squares = np.mean(np.outer(np.arange(1, 5), np.arange(1, 5)) ** 2)
    # Gram matrices over 2 pixels: vvᵀ times (1 + 0) / 2 against 0, and (4 + 0) / 2 against (1 + 1) / 2.
    np.testing.assert_allclose(made_up_loss("style", generated, target), [outer_squares / 4, outer_squares], rtol=1e-6)


@pytest.mark.parametrize(("generated", "target"), [([0, 0], [0, 0]), ([0, 1], [1, 0]), ([0, 0], [1, 2])])
@pytest.mark.parametrize("name", LOSSES)
def test_pixels_without_features_give_no_nan(name, generated, target):
    features = made_up(generated)
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = made_up_loss(name, features, made_up(target))
    gradient = tape.gradient(value, features)["relu1_2"].numpy()
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    if generated == target:
        assert value == 0
        assert not gradient.any()


def test_style_does_not_see_where_a_texture_is():
    generated, target = made_up([1, 2]), made_up([2, 1])
    assert made_up_loss("style", generated, target) == 0
    assert made_up_loss("vgg_mse", generated, target) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_features_are_summed_in_float32(name):
    rng = np.random.default_rng(0)
    generated, target = (
        {"relu1_2": tf.constant(rng.random((2, 9, 7, 4)), tf.bfloat16)} for _ in ("generated", "target")
    )
    exact = ({"relu1_2": tf.cast(features["relu1_2"], tf.float32)} for features in (generated, target))
    values = made_up_loss(name, generated, target)
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, made_up_loss(name, *exact))


@pytest.mark.parametrize("name", ["vgg_mse", "style"])
def test_layers_are_added_up(name):
    rng = np.random.default_rng(1)
    generated, target = (
        {layer: tf.constant(rng.random((2, 3, 5, 6), np.float32)) for layer in ("relu1_1", "pool3", "relu5_1")}
        for _ in ("generated", "target")
    )

    def loss(*layers):
        features = [{layer: maps[layer] for layer in layers} for maps in (generated, target)]
        return LOSSES[name](Pair(None, None, *features))

    np.testing.assert_allclose(loss("relu1_1", "pool3"), loss("relu1_1") + loss("pool3"), rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 1, 18, 512), (4, 2, 18, 512), (2, 16, 16, 128)])
def test_a_gpu_takes_the_products_of_a_batch_at_once(shape):
    """XLA stands in for the GPU: on a CPU, TensorFlow's own batched products are wrong."""
    rng = np.random.default_rng(0)
    generated, target = rng.random((2, *shape), np.float32)
    style = tf.function(
        lambda g, t: LOSSES["style"](Pair(g, t, {"x": g}, {"x": t}, over=Reductions(on_gpu=True))), jit_compile=True
    )
    operations = {operation.type for operation in style.get_concrete_function(generated, target).graph.get_operations()}
    assert "BatchMatMulV2" in operations
    assert "While" not in operations
    with tf.GradientTape() as tape:
        maps = tf.constant(generated)
        tape.watch(maps)
        value = style(maps, target)
    flat, other = (images.reshape(len(images), -1, shape[3]).astype(np.float64) for images in (generated, target))
    difference = (flat.swapaxes(1, 2) @ flat - other.swapaxes(1, 2) @ other) / flat.shape[1]
    np.testing.assert_allclose(value, (difference**2).mean((1, 2)), rtol=1e-5)
    slope = 4 * flat @ difference / flat.shape[1] / shape[3] ** 2
    np.testing.assert_allclose(
        tape.gradient(value, maps), slope.reshape(shape), rtol=1e-4, atol=1e-5 * np.abs(slope).max()
    )


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_any_number_of_threads(threads):
    """Batched products of TensorFlow 2.21 are wrong for these shapes with several threads, or break the process off."""
    program = textwrap.dedent(
        """
        import numpy as np
        import tensorflow as tf

        from transforms.losses import perceptual
        from transforms.losses.pair import Pair

        rng = np.random.default_rng(0)
        weights = rng.random(512, np.float32)

        def unit(x):
            return x / np.linalg.norm(x, axis=-1, keepdims=True)

        def gram(x):
            flat = x.reshape(len(x), -1, 512)
            return np.einsum("bic,bid->bcd", flat, flat, optimize=True) / flat.shape[1]

        lpips = tf.function(lambda g, t: perceptual.lpips(Pair(g, t, {"x": g}, {"x": t}, {"x": weights})))
        style = tf.function(lambda g, t: perceptual.style(Pair(g, t, {"x": g}, {"x": t})))
        for shape in ((7, 1, 18, 512), (3, 1, 18, 512), (7, 2, 18, 512), (2, 16, 16, 512)):
            pair = rng.random((2, *shape), np.float32)
            exact = pair.astype(np.float64)
            distance = ((unit(exact[0]) - unit(exact[1])) ** 2 @ weights).mean((1, 2))
            difference = ((gram(exact[0]) - gram(exact[1])) ** 2).mean((1, 2))
            for _ in range(10):
                np.testing.assert_allclose(lpips(*pair), distance, rtol=1e-5)
                np.testing.assert_allclose(style(*pair), difference, rtol=1e-4)
        print("right")
        """
    )
    variables = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=variables)
    assert run.stdout == "right\n", f"exit code {run.returncode}: {run.stderr[-2000:]}"


@pytest.mark.parametrize(("size", "filled"), [((1, 4, 4), 16), ((2, 4, 4), 32), ((1, 3, 5), 16), ((3, 61, 47), 16384)])
def test_xla_compiles_distances_for_powers_of_two(size, filled, monkeypatch):
    """It takes seconds for every shape, and pictures come in many."""
    rng = np.random.default_rng(3)
    generated, target = (tf.constant(rng.random((*size, 64), np.float32)) for _ in range(2))
    weights = rng.random(64, np.float32)
    shapes, by_xla = [], perceptual._distances_by_xla
    monkeypatch.setattr(perceptual, "_distances_by_xla", lambda *of: shapes.append(of[0].shape) or by_xla(*of))
    found = perceptual.compiled_distances(generated, target, weights)
    assert shapes == [(filled, 64)]
    # Sums of float32 in another order.
    np.testing.assert_allclose(found, perceptual._distances(generated, target, weights), rtol=1e-5)
