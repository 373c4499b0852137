"""Update rules, element by element and image by image: no image's numbers depend on its neighbours'.

Keras' optimizers are not used: they share one step count over the batch, and some of them clip by the whole batch's
norm. A method keeps a dict of tensors whose first axis is the image.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import tensorflow as tf

State = dict[str, tf.Tensor]


class Box(NamedTuple):
    """The images [B, H, W, 3] between which every image must stay."""

    low: tf.Tensor
    high: tf.Tensor

    def project(self, images: tf.Tensor) -> tf.Tensor:
        """The nearest images inside."""
        return tf.clip_by_value(images, self.low, self.high)

    def free(self, images: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
        """True for pixels that can go against the gradient without leaving the box, bool [B, H, W, 3]."""
        return tf.where(gradients > 0, images > self.low, images < self.high)


class Evaluation(NamedTuple):
    """The objective at the images that a method proposed last.

    Attributes:
        images: float32 [B, H, W, 3].
        values: of the objective, scaled as the gradients are, float32 [B].
        gradients: scaled so that they have a root mean square of 1 at the start, float32 [B, H, W, 3].
        rates: learning rates, float32 [B].
        fresh: whether the image is at its start, or back at its best after a failure, so that whatever the method
            remembers is void, bool [B].
    """

    images: tf.Tensor
    values: tf.Tensor
    gradients: tf.Tensor
    rates: tf.Tensor
    fresh: tf.Tensor


class Method(Protocol):
    """A way to descend.

    Attributes:
        searches: whether the method itself rejects images that are worse than those before.
    """

    searches: ClassVar[bool]

    def initial(self, images: tf.Tensor) -> State:
        """A state for these images, which are fresh: its values play no part."""

    def propose(self, state: State, at: Evaluation, box: Box) -> tuple[tf.Tensor, State]:
        """The images to evaluate next, inside the box, and what to remember."""


@dataclass(frozen=True)
class Sgd:
    """Gradient descent with Nesterov's momentum, in the form of Sutskever et al. 2013, as Keras has it."""

    momentum: float = 0.8

    searches: ClassVar[bool] = False

    def initial(self, images: tf.Tensor) -> State:
        return {"velocity": tf.zeros_like(images)}

    def propose(self, state: State, at: Evaluation, box: Box) -> tuple[tf.Tensor, State]:
        step = per_image(at.rates) * at.gradients
        velocity = self.momentum * tf.where(per_image(at.fresh), 0.0, state["velocity"]) - step
        return box.project(at.images + self.momentum * velocity - step), {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam, Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1.

    Epsilon is added to the corrected root. The gradients have a root mean square of 1 at the start, so epsilon weighs
    the same at any size of image and any scale of the objective. Memories are shorter than the usual 0.9 and 0.999,
    because a descent has tens of steps, not thousands.
    """

    beta_1: float = 0.8
    beta_2: float = 0.95
    epsilon: float = 1e-3

    searches: ClassVar[bool] = False

    def initial(self, images: tf.Tensor) -> State:
        pixels = tf.zeros_like(images)
        return {"mean": pixels, "square": pixels, "count": tf.zeros(tf.shape(images)[:1])}

    def propose(self, state: State, at: Evaluation, box: Box) -> tuple[tf.Tensor, State]:
        mean, square = (tf.where(per_image(at.fresh), 0.0, state[name]) for name in ("mean", "square"))
        count = tf.where(at.fresh, 0.0, state["count"]) + 1.0
        mean += (1 - self.beta_1) * (at.gradients - mean)
        square += (1 - self.beta_2) * (tf.square(at.gradients) - square)
        rate = at.rates / (1 - tf.pow(self.beta_1, count))
        root = tf.sqrt(square / per_image(1 - tf.pow(self.beta_2, count)))
        images = box.project(at.images - per_image(rate) * mean / (root + self.epsilon))
        return images, {"mean": mean, "square": square, "count": count}


def per_image(values: tf.Tensor) -> tf.Tensor:
    """[B] as [B, 1, 1, 1]: one value for all pixels of an image."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def select(images: tf.Tensor, yes: tf.Tensor, no: tf.Tensor) -> tf.Tensor:
    """The rows of `yes` [B, ...] where `images` [B] is true, those of `no` elsewhere."""
    return tf.where(images if yes.shape.rank == 1 else per_image(images), yes, no)


def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Sum over the pixels of the products, [B]."""
    return tf.reduce_sum(a * b, axis=(1, 2, 3))
