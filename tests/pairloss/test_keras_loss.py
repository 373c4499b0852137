"""`PairLoss` trains a model on the numbers of the pipeline."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pairloss import LOSSES, PairLoss, score

pytestmark = pytest.mark.heavy

OBJECTIVE = "lpips_vgg + 0.1*fd_l1"
PIXELS = "1 - ssim + 0.1*fd_l1 + charbonnier"
LEVELS = [np.random.default_rng(seed).integers(0, 256, (4, 16, 20, 3), np.uint8) for seed in (0, 1)]
GENERATED, TARGET = (np.float32(levels) / np.float32(255) for levels in LEVELS)


def model(objective: str = PIXELS, jit: bool = False, last: str | None = None, size: tuple = (16, 20)) -> keras.Model:
    """One convolution that starts as the identity, with noise on it."""
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((*size, 3)), keras.layers.Conv2D(3, 3, padding="same", dtype=last)])
    kernel, bias = made.get_weights()
    kernel = 0.1 * kernel
    kernel[1, 1] += np.eye(3)
    made.set_weights([kernel, bias])
    made.compile(keras.optimizers.SGD(0.01), loss=PairLoss(objective), jit_compile=jit)
    return made


@pytest.mark.parametrize(
    "name",
    [n for n, loss in LOSSES.items() if loss.differentiable and loss.network != "vgg16_keras" and not loss.part_of],
)
def test_numbers_of_the_pipeline(name):
    side = max(16, LOSSES[name].min_side)
    levels = [np.random.default_rng(seed).integers(0, 256, (2, side, side, 3), np.uint8) for seed in (0, 1)]
    expected = score(*levels, name)[name]
    loss = PairLoss(name, reduction=None)
    generated, target = (np.float32(images) / np.float32(255) for images in levels)
    np.testing.assert_allclose(loss(target, generated), expected, rtol=1e-5)
    called = loss.call(tf.constant(target), tf.constant(generated))
    assert (called.dtype, called.shape) == (tf.float32, (2,))


def test_reduction_and_weights():
    values = PairLoss(OBJECTIVE, reduction="none")(TARGET, GENERATED)
    expected = score(*LEVELS, (), objective=OBJECTIVE)["objective"]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert float(PairLoss()(TARGET, GENERATED)) == pytest.approx(expected.mean(), rel=1e-5)
    weighted = PairLoss(OBJECTIVE, reduction="sum")(TARGET, GENERATED, sample_weight=np.array([1, 0, 0, 2]))
    assert float(weighted) == pytest.approx(expected[0] + 2 * expected[3], rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "jit"),
    [(PIXELS, False), (PIXELS, True), (OBJECTIVE, False), pytest.param(OBJECTIVE, True, marks=pytest.mark.slow)],
)
def test_training(objective, jit):
    trained = model(objective, jit)
    losses = []
    for _ in range(3):
        predicted = trained.predict(GENERATED, verbose=0)
        now = PairLoss(objective, reduction=None)(TARGET, predicted).numpy()
        losses.append(now.mean())
        assert trained.train_on_batch(GENERATED, TARGET) == pytest.approx(losses[-1], rel=1e-4)
    assert losses[2] < losses[1] < losses[0]


def test_it_is_plain_tensorflow():
    spec = tf.TensorSpec([None, None, None, 3])
    graph = tf.function(PairLoss(OBJECTIVE).call).get_concrete_function(spec, spec).graph
    assert not [op.type for op in graph.get_operations() if "PyFunc" in op.type]


def test_nothing_is_clipped():
    outside = tf.constant(2 * GENERATED - 1)
    with tf.GradientTape() as tape:
        tape.watch(outside)
        value = PairLoss("mse")(TARGET, outside)
    np.testing.assert_allclose(value, np.square(outside - TARGET).mean(), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(value, outside), 2 * (outside - TARGET) / TARGET.size, rtol=1e-4)


def test_configuration_makes_an_equal_loss():
    loss = PairLoss("0.1*fd_l1+lpips_vgg", precision="bfloat16", reduction="sum", name="mine")
    config = loss.get_config()
    assert config == {
        "name": "mine",
        "reduction": "sum",
        "objective": "0.1*fd_l1 + lpips_vgg",
        "precision": "bfloat16",
    }
    for again in (PairLoss.from_config(config), keras.losses.deserialize(keras.losses.serialize(loss))):
        assert again.get_config() == config
        assert again(TARGET, GENERATED) == loss(TARGET, GENERATED)


def test_a_saved_model_keeps_its_loss(tmp_path):
    model().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == PairLoss(PIXELS).get_config()
    assert loaded.evaluate(GENERATED, TARGET, verbose=0) == pytest.approx(
        model().evaluate(GENERATED, TARGET, verbose=0), rel=1e-6
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        half, whole = model(), model(last="float32")
    finally:
        keras.config.set_dtype_policy("float32")
    expected = PairLoss(PIXELS)(TARGET, whole.predict(GENERATED, verbose=0)).numpy()
    # Only the model's output is rounded to half precision, not the loss.
    assert half.evaluate(GENERATED, TARGET, verbose=0) == pytest.approx(expected, rel=1e-2)
    assert whole.evaluate(GENERATED, TARGET, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(half.train_on_batch(GENERATED, TARGET))


@pytest.mark.parametrize(
    ("target", "generated", "message"),
    [
        (LEVELS[1], GENERATED, r"y_true has dtype uint8; give floats in \[0, 1\]"),
        (TARGET, LEVELS[0], "y_pred has dtype uint8"),
        (TARGET[..., :1], GENERATED[..., :1], r"y_true has shape \(4, 16, 20, 1\); PairLoss compares RGB images"),
        (TARGET[0], GENERATED[0], r"y_true has shape \(16, 20, 3\); PairLoss compares RGB images \[B, H, W, 3\]"),
        (TARGET[:, 1:], GENERATED, r"y_true has shape \(4, 15, 20, 3\) and y_pred \(4, 16, 20, 3\)"),
        (TARGET[:, :8], GENERATED[:, :8], r"y_true has shape \(4, 8, 20, 3\); .* needs sides of 11 pixels or more"),
        (255 * TARGET, GENERATED, r"y_true has values outside \[0, 1\]"),
    ],
)
def test_wrong_images(target, generated, message):
    with pytest.raises(ValueError, match=message):
        PairLoss(PIXELS)(target, generated)


def test_wrong_images_in_training():
    trained = model("fd_l1", size=(None, None))
    with pytest.raises(ValueError, match="y_true has dtype uint8"):
        trained.fit(GENERATED, LEVELS[1], verbose=0)
    with pytest.raises(ValueError, match=r"y_true has shape \(None, 1, 20, 3\); 'fd_l1' needs sides of 2 pixels"):
        trained.fit(GENERATED[:, :1], TARGET[:, :1], verbose=0)


def test_wrong_images_of_sizes_unknown_to_tracing():
    spec = tf.TensorSpec([None, None, None, 3])
    loss = tf.function(PairLoss("fd_l1").call, input_signature=[spec, spec])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images too small for \\'fd_l1"):
        loss(TARGET[:, :1], GENERATED[:, :1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="y_true and y_pred differ in shape"):
        loss(TARGET[:1], GENERATED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "psnr"}, "psnr has no usable gradient"),
        ({"objective": "lpips"}, "unknown loss 'lpips'"),
        ({"precision": "float16"}, "precision is 'float16'; give float32 or bfloat16"),
        ({"reduction": "median"}, "Invalid value for argument `reduction`"),
    ],
)
def test_wrong_requests(options, message):
    with pytest.raises(ValueError, match=message):
        PairLoss(**options)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_another_backend(backend):
    command = [sys.executable, "-c", "from pairloss import PairLoss"]
    done = subprocess.run(
        command, env=os.environ | {"KERAS_BACKEND": backend}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: PairLoss needs Keras' TensorFlow backend, but Keras uses '{backend}': "
        "set KERAS_BACKEND=tensorflow before anything imports Keras"
    )
