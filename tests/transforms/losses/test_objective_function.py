"""The objective as a function of the generated images."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.as_gpu import AS_GPU
from support.pictures import noise, smooth

from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.pair import family_values
from transforms.losses.plan import Plan
from transforms.losses.protocol import Protocol

pytestmark = pytest.mark.heavy

OBJECTIVE = "0.5 + 2*lpips_vgg + 0.1*fd_l1 - 0.2*ssim + 0.01*vgg_mse"


def plan_of(objective, weights=None, precision="float32", backend="tensorflow"):
    weights = {"vgg16_lpips": weights}
    return Plan(("mae",), parse_objective(objective), True, precision, weights=weights, backend=backend)


def pictures(height=33, width=20):
    """A noisy, an unrelated, an identical, a flat and an almost identical pair, uint8."""
    target = np.stack([smooth(height, width)] * 5)
    target[3] = 7
    generated = target.copy()
    generated[0] = np.clip(target[0] + np.random.default_rng(1).normal(0, 25, target[0].shape), 0, 255)
    generated[1] = noise(1, height, width)
    generated[3] = 90
    generated[4, 5, 5] ^= 1
    return generated, target


def as_images(levels):
    return tf.constant(levels.astype(np.float32) / np.float32(255))


def plain_gradient(networks, objective, generated, target):
    """By TensorFlow alone, without what is fused or kept."""
    with tf.GradientTape() as tape:
        tape.watch(generated)
        features = [networks.features(images, objective.losses) for images in (generated, target)]
        values = {}
        for family in networks.plan.families(objective.losses):
            values |= family_values(networks, family, generated, target, *features)
        total = objective.evaluate(values)
    return total, tape.gradient(total, generated)


def test_a_cut_border_has_no_part_in_the_value_and_no_gradient(lpips_weights):
    generated, target = map(as_images, pictures(37, 33))
    plan = plan_of("lpips_vgg + fd_l2", lpips_weights)
    cut = dataclasses.replace(plan, protocol=Protocol(crop_border=5))
    whole, inside = ObjectiveFunction(cut), ObjectiveFunction(plan)
    assert whole.smallest_side == 26
    references = whole.references(target)
    value, gradient, _ = whole.value_and_gradient(generated, references)
    middle = (slice(None), slice(5, -5), slice(5, -5))
    expected, expected_gradient, _ = inside.value_and_gradient(generated[middle], inside.references(target[middle]))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(whole.value(generated, references), inside.value(generated[middle], references))
    np.testing.assert_array_equal(gradient[middle], expected_gradient)
    assert np.abs(gradient).sum() == pytest.approx(np.abs(expected_gradient).sum(), rel=1e-6)


def test_a_part_of_lpips_has_the_gradient_of_its_layer(lpips_weights):
    plan = plan_of("lpips_vgg_relu2_2 + 3*lpips_vgg_relu4_3", lpips_weights)
    networks = Networks(plan)
    generated, target = map(as_images, pictures())
    function = ObjectiveFunction(plan, networks)
    values, gradients, _ = function.value_and_gradient(generated, function.references(target))
    expected_values, expected = plain_gradient(networks, plan.objective, generated, target)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    np.testing.assert_allclose(gradients, expected, atol=1e-4 * np.abs(expected[0]).max())


@pytest.mark.parametrize(
    ("precision", "backend", "rtol", "rows"),
    [
        ("float32", "tensorflow", 1e-4, (0, 1, 3)),
        ("bfloat16", "tensorflow", 3e-2, (0, 1, 3)),
        # The outputs for a flat picture are equal but for rounding, so that any may be a pooling's maximum.
        ("float32", "ncnn", 1e-2, (0, 1)),
    ],
)
def test_value_and_gradient_are_those_of_plain_tensorflow(lpips_weights, precision, backend, rtol, rows):
    plan = plan_of(OBJECTIVE, lpips_weights, precision)
    networks = Networks(plan)
    generated, target = map(as_images, pictures())
    plan = dataclasses.replace(plan, backend=backend)
    function = ObjectiveFunction(plan, networks if backend == "tensorflow" else Networks(plan))
    references = function.references(target)
    values, gradients, terms = function.value_and_gradient(generated, references)
    expected_values, expected = plain_gradient(networks, plan.objective, generated, target)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    np.testing.assert_allclose(function.value(generated, references), values, rtol=1e-6)
    np.testing.assert_allclose(plan.objective.evaluate(terms), values, rtol=1e-6)
    for row in rows:
        np.testing.assert_allclose(gradients[row], expected[row], atol=rtol * np.abs(expected[row]).max())


def test_the_tensorflow_form_of_the_gpu_gives_the_same(lpips_weights):
    plan = plan_of(OBJECTIVE, lpips_weights)
    generated, target = map(as_images, pictures())
    networks = Networks(plan)
    fused = ObjectiveFunction(plan, networks)
    plain = ObjectiveFunction(plan, Networks(plan, AS_GPU))
    results = [f.value_and_gradient(generated, f.references(target)) for f in (fused, plain)]
    for found, expected in zip(*(result[:2] for result in results), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_value_is_what_scoring_gives(lpips_weights):
    plan = plan_of(OBJECTIVE, lpips_weights)
    images = pictures()
    function = ObjectiveFunction(plan)
    values = function.value(as_images(images[0]), function.references(as_images(images[1])))
    np.testing.assert_allclose(values, Evaluator(plan)(*images)["objective"], rtol=1e-5)


@pytest.mark.parametrize(
    ("precision", "backend"), [("float32", "tensorflow"), ("float32", "ncnn"), ("bfloat16", "tensorflow")]
)
def test_an_identical_pair_has_no_gradient(lpips_weights, precision, backend):
    function = ObjectiveFunction(plan_of(OBJECTIVE, lpips_weights, precision, backend))
    generated, target = map(as_images, pictures())
    _, gradients, _ = function.value_and_gradient(generated, function.references(target))
    assert np.abs(gradients).max(axis=(1, 2, 3))[2] == 0
    assert (np.abs(gradients).max(axis=(1, 2, 3))[[0, 1, 3, 4]] > 0).all()
    assert np.isfinite(gradients).all()


def test_roughness_has_a_gradient_for_an_identical_pair_too():
    function = ObjectiveFunction(plan_of("mse + tv"))
    _, target = map(as_images, pictures())
    _, gradients, _ = function.value_and_gradient(target, function.references(target))
    assert np.abs(gradients[2]).max() > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_do_not_depend_on_their_neighbours(lpips_weights, precision):
    function = ObjectiveFunction(plan_of(OBJECTIVE, lpips_weights, precision))
    generated, target = map(as_images, pictures())
    whole = function.value_and_gradient(generated, function.references(target))
    for rows in ([1], [4, 0, 1]):
        some = tf.gather(generated, rows)
        part = function.value_and_gradient(some, function.references(tf.gather(target, rows)))
        for found, expected in zip(part[:2], whole[:2], strict=True):
            expected = expected.numpy()[rows]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("objective", "side"), [("mse", 1), ("fd_l1 + mae", 2), ("lpips_vgg + ms_ssim", 161)])
def test_smallest_side_is_that_of_the_neediest_loss(lpips_weights, objective, side):
    assert ObjectiveFunction(plan_of(objective, lpips_weights)).smallest_side == side


@pytest.mark.parametrize(
    ("plan", "message"),
    [(Plan(("mae",)), "no objective"), (plan_of("mse + psnr"), "psnr has no usable gradient")],
)
def test_what_cannot_be_minimized_is_refused(plan, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveFunction(plan)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_kernels_it_is_plain_tensorflow(lpips_weights, jit_compile):
    plan = plan_of(f"{OBJECTIVE} + 0.1*style", lpips_weights)
    networks = Networks(plan)
    function = ObjectiveFunction(plan, networks, fused=False)

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(generated, target):
        with tf.GradientTape() as tape:
            tape.watch(generated)
            value = function.value(generated, function.references(target))
        return value, tape.gradient(value, generated)

    generated, target = map(as_images, pictures(17, 16))
    operations = value_and_gradient.get_concrete_function(generated, target).graph.get_operations()
    assert not [operation for operation in operations if "PyFunc" in operation.type]
    fused = ObjectiveFunction(plan, networks)
    expected = fused.value_and_gradient(generated, fused.references(target))
    for found, exact, row in zip(value_and_gradient(generated, target), expected[:2], (..., [0, 1, 3]), strict=True):
        exact = exact.numpy()[row]
        np.testing.assert_allclose(found.numpy()[row], exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


def test_values_of_losses_beside_the_objective(lpips_weights):
    plan = plan_of("mse + 0.1*vgg_mse", lpips_weights)
    generated, target = map(as_images, pictures())
    function = ObjectiveFunction(plan, beside=("mae", "vgg_mse"))
    total, _, values = function.value_and_gradient(generated, function.references(target))
    assert list(values) == ["mse", "vgg_mse", "mae"]
    np.testing.assert_allclose(values["mae"], np.abs(generated - target).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(total, plan.objective.evaluate(values), rtol=1e-6)
