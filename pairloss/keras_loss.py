"""An objective as a loss of Keras, so that you train with what you audit with.

This is the one module of this package that knows how networks and losses are called.
"""

import os
from typing import Any

from transforms.losses.objective import check_differentiable, parse_objective
from transforms.losses.plan import Plan


def _check_backend(name: str) -> None:
    if name != "tensorflow":
        raise ImportError(
            f"PairLoss needs Keras' TensorFlow backend, but Keras uses {name!r}: "
            "set KERAS_BACKEND=tensorflow before anything imports Keras"
        )


# First, because Keras fails with an error of its own where that backend is not installed.
_check_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from transforms.losses.devices import Device  # noqa: E402
from transforms.losses.networks.loaded import Networks  # noqa: E402
from transforms.losses.objective_function import ObjectiveFunction  # noqa: E402

_check_backend(keras.config.backend())


@keras.saving.register_keras_serializable(package="pairloss")
class PairLoss(keras.losses.Loss):
    """A weighted sum of losses for `model.compile`: `y_true` is the target, `y_pred` the generated image.

    Both are RGB [B, H, W, 3] of one shape, floats on the scale of [0, 1]. Nothing is clipped: a prediction outside
    [0, 1] has a loss and a gradient that lead back. The numbers are those of `score` for the same objective, up to
    rounding.

    The loss itself is computed in float32 whatever the model's dtype policy is; only the network's features follow
    `precision`. Under `mixed_float16` or `mixed_bfloat16`, give the model's last layer `dtype="float32"`, because
    half precision leaves a picture about 8 bits. TensorFlow's settings stay as you made them. With TensorFloat-32, the
    default on recent GPUs, features have 10 bits, so the numbers differ more from those of `score`, which turns it off.

    Args:
        objective: weighted sum of differentiable losses.
        precision: of the networks: "float32", or "bfloat16", which is faster where the hardware multiplies it.
        reduction: as for every loss of Keras.
        name: as for every loss of Keras.

    Raises:
        ValueError: the objective is malformed, or a loss in it has no usable gradient; in training: the images are not
            [B, H, W, 3], differ in shape, are integers, or are too small for the objective.
        WeightsError: the weights of a network cannot be fetched.

    Example:
        >>> import keras
        >>> from pairloss import PairLoss
        >>> model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 3, padding="same")])
        >>> model.compile("adam", loss=PairLoss("lpips_vgg + 0.1*fd_l1"))
        >>> loss = PairLoss("1 - ssim", reduction=None)
        >>> loss(keras.ops.zeros((2, 16, 16, 3)), keras.ops.zeros((2, 16, 16, 3))).numpy()
        array([0., 0.], dtype=float32)
    """

    def __init__(
        self,
        objective: str = "lpips_vgg + 0.1*fd_l1",
        *,
        precision: str = "float32",
        reduction: str | None = "sum_over_batch_size",
        name: str = "pair_loss",
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is {precision!r}; give float32 or bfloat16, float16 loses small gradients")
        self.objective = parse_objective(objective)
        check_differentiable(self.objective)
        self.precision = precision
        plan = Plan(self.objective.losses, self.objective, precision=precision).with_weights()
        device = "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"
        # The fused kernels run outside of TensorFlow's graph, where XLA cannot follow.
        self._function = ObjectiveFunction(plan, Networks(plan, Device(device)), fused=False)
        self.smallest_side = self._function.smallest_side

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        # Before Keras turns both into floats.
        for name, images in (("y_true", y_true), ("y_pred", y_pred)):
            dtype = tf.as_dtype(getattr(images, "dtype", "float32"))
            if not dtype.is_floating:
                raise ValueError(f"{name} has dtype {dtype.name}; give floats in [0, 1], for uint8 images / 255")
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """The objective of each pair, float32 [B].

        Args:
            y_true: targets, float32 [B, H, W, 3] in [0, 1].
            y_pred: generated images of the same shape.
        """
        self._check(y_true, y_pred)
        return self._function.value(y_pred, self._function.references(y_true))

    def get_config(self) -> dict[str, Any]:
        """The arguments of an equal loss, for `from_config`."""
        return super().get_config() | {"objective": str(self.objective), "precision": self.precision}

    def _check(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> None:
        for name, images in (("y_true", y_true), ("y_pred", y_pred)):
            if images.shape.rank is not None and not images.shape.is_compatible_with([None, None, None, 3]):
                raise ValueError(f"{name} has shape {images.shape}; PairLoss compares RGB images [B, H, W, 3]")
            if any(side and side < self.smallest_side for side in images.shape[1:3]):
                raise ValueError(
                    f"{name} has shape {images.shape}; '{self.objective}' needs sides of "
                    f"{self.smallest_side} pixels or more"
                )
        if not y_true.shape.is_compatible_with(y_pred.shape):
            raise ValueError(f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; they must be the same")
        # Sizes that tracing does not know: TensorFlow would broadcast, or return unset memory. XLA drops these checks.
        tf.debugging.assert_equal(tf.shape(y_true), tf.shape(y_pred), "y_true and y_pred differ in shape")
        smallest = tf.reduce_min(tf.shape(y_true)[1:3])
        tf.debugging.assert_greater_equal(smallest, self.smallest_side, f"images too small for '{self.objective}'")
        if tf.executing_eagerly() and not (tf.reduce_min(y_true) >= 0 and tf.reduce_max(y_true) <= 1):
            raise ValueError("y_true has values outside [0, 1]; scale the targets to [0, 1]")
