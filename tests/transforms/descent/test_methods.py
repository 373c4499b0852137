"""Update rules against Keras' optimizers, closed forms and SciPy."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from transforms.descent.lbfgs import Lbfgs
from transforms.descent.methods import Adam, Box, Evaluation, Sgd

pytestmark = pytest.mark.heavy

SHAPE = 3, 4, 5, 3
EVERYWHERE = Box(tf.constant(-1e9), tf.constant(1e9))


def start(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def quadratic(images):
    """Value and gradient of sum(c x²) / 2, curvature c from 1 to 20 over the pixels."""
    curvature = np.geomspace(1, 20, images[0].size, dtype=np.float32).reshape(images.shape[1:])
    gradients = curvature * images
    return (gradients * images).sum(axis=(1, 2, 3)) / 2, gradients


def rosenbrock(images):
    """Rosenbrock's valley in pairs of pixels."""
    flat = images.reshape(len(images), -1, 2).astype(np.float64)
    a, b = flat[..., 0], flat[..., 1]
    gradients = np.stack([-400 * a * (b - a**2) - 2 * (1 - a), 200 * (b - a**2)], axis=-1)
    return (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum(axis=1), gradients.reshape(images.shape)


def descend(method, function, images, steps, rates, box=EVERYWHERE, fresh_at=(0,)):
    """The images that are evaluated, one [B, H, W, C] a step, and their values."""
    images = tf.constant(images, tf.float32)
    state = method.initial(images)
    propose = tf.function(method.propose, autograph=False)
    path, values = [images.numpy()], []
    for step in range(steps):
        value, gradients = (np.asarray(x, np.float32) for x in function(images.numpy()))
        fresh = tf.fill([len(value)], step in fresh_at)
        at = Evaluation(images, tf.constant(value), tf.constant(gradients), tf.constant(rates, tf.float32), fresh)
        images, state = propose(state, at, box)
        path.append(images.numpy())
        values.append(value)
    return path, np.array(values)


@pytest.mark.parametrize(
    ("method", "keras"),
    [
        (Sgd(0.0), tf.keras.optimizers.SGD(0.01)),
        (Sgd(0.9), tf.keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)),
        # Keras adds epsilon to the root before it corrects it: alike where epsilon is nothing.
        (Adam(0.9, 0.999, 1e-12), tf.keras.optimizers.Adam(0.01, 0.9, 0.999, 1e-12)),
        (Adam(0.9, 0.99, 1e-12), tf.keras.optimizers.Adam(0.01, 0.9, 0.99, 1e-12)),
    ],
)
def test_first_order_methods_are_those_of_keras(method, keras):
    variable = tf.Variable(start())
    path, _ = descend(method, quadratic, start(), 20, [0.01] * 3)
    for images in path[1:]:
        keras.apply([tf.constant(quadratic(variable.numpy())[1])], [variable])
        np.testing.assert_allclose(images, variable.numpy(), atol=1e-6)


@pytest.mark.parametrize(("method", "steps"), [(Sgd(0.0), 1), (Adam(), 1), (Lbfgs(), 1)])
def test_the_first_step_is_the_learning_rate_of_the_image(method, steps):
    images = np.sign(start())
    path, _ = descend(method, lambda x: (np.square(x).sum(axis=(1, 2, 3)) / 2, x), images, steps, [0.5, 0.01, 0.1])
    moved = (path[0] - path[1]) / images
    np.testing.assert_allclose(moved, np.broadcast_to([[[[0.5]]], [[[0.01]]], [[[0.1]]]], SHAPE), rtol=2e-3)


def test_adams_epsilon_weighs_against_the_corrected_root():
    gradient = np.full(SHAPE, 1e-3, np.float32)
    path, _ = descend(Adam(epsilon=1e-3), lambda x: (np.zeros(3), gradient), start(), 1, [0.01] * 3)
    np.testing.assert_allclose(path[0] - path[1], 0.005, rtol=1e-3)


@pytest.mark.parametrize("method", [Sgd(), Adam(), Lbfgs()])
def test_fresh_images_forget_everything(method):
    function = quadratic
    path, _ = descend(method, function, start(), 8, [0.01, 0.02, 0.03], fresh_at=(0, 5))
    again, _ = descend(method, function, path[5], 3, [0.01, 0.02, 0.03])
    np.testing.assert_array_equal(path[6:], again[1:])


@pytest.mark.parametrize("method", [Sgd(), Adam(), Lbfgs()])
@pytest.mark.parametrize("function", [quadratic, rosenbrock])
def test_rows_do_not_know_each_other(method, function):
    rates = np.array([0.01, 0.1, 0.002])
    if function is rosenbrock and not method.searches:
        rates /= 1000
    images = start() * np.array([1, 0.1, 3], np.float32)[:, None, None, None]
    path, _ = descend(method, function, images, 15, rates)
    for row in range(3):
        alone, _ = descend(method, function, images[[row]], 15, rates[[row]])
        np.testing.assert_allclose(np.array(alone)[:, 0], np.array(path)[:, row], rtol=1e-5, atol=1e-6)


class TestLbfgs:
    @pytest.mark.parametrize(("function", "evaluations"), [(quadratic, 40), (rosenbrock, 150)])
    def test_gets_where_scipy_gets(self, function, evaluations):
        images = 0.5 + 0.3 * start()[:1]

        def flat(x):
            value, gradient = function(x.reshape(images.shape))
            return float(value[0]), gradient.ravel().astype(np.float64)

        expected = scipy.optimize.minimize(flat, images.ravel(), jac=True, method="L-BFGS-B", options={"maxcor": 6})
        path, values = descend(Lbfgs(), function, images, evaluations, [0.1])
        assert values.min() < 1e-4 * values[0]
        np.testing.assert_allclose(path[int(values.argmin())].ravel(), expected.x, atol=5e-2)

    def test_needs_few_evaluations_more_than_scipy(self):
        images = start()[:1]
        counted = []

        def flat(x):
            value, gradient = quadratic(x.reshape(images.shape).astype(np.float32))
            counted.append(float(value[0]))
            return float(value[0]), gradient.ravel().astype(np.float64)

        scipy.optimize.minimize(flat, images.ravel(), jac=True, method="L-BFGS-B", options={"maxcor": 6})
        needed = next(number for number, value in enumerate(counted) if value < 1e-3 * counted[0])
        _, values = descend(Lbfgs(), quadratic, images, 2 * needed, [0.1])
        assert values.min() < 1e-3 * values[0]

    def test_stays_in_the_box_and_finds_its_corner(self):
        # The minimum, 1 everywhere, lies outside; the nearest point of the box is 0.25 in every pixel.
        box = Box(tf.constant(-0.5), tf.constant(0.25))
        images = np.clip(start(), -0.5, 0.25)
        curvature = np.geomspace(1, 20, images[0].size, dtype=np.float32).reshape(images.shape[1:])

        def function(x):
            return (curvature * (x - 1) ** 2).sum(axis=(1, 2, 3)) / 2, curvature * (x - 1)

        path, _ = descend(Lbfgs(), function, images, 25, [0.1] * 3, box)
        assert np.min(path) >= -0.5
        assert np.max(path) <= 0.25
        np.testing.assert_allclose(path[-1], 0.25, atol=1e-5)

    def test_survives_a_function_that_never_falls(self):
        path, _ = descend(Lbfgs(), lambda x: (np.arange(3) + abs(x).sum(axis=(1, 2, 3)), -x), start(), 30, [0.1] * 3)
        assert np.isfinite(path).all()
