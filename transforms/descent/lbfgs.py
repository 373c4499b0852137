"""L-BFGS for many images at once. Each has a state of its own; a step is one evaluation of all, accepted or not."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from transforms.descent.methods import Box, Evaluation, State, dot, per_image, select

# The cosine between a step and the change of the gradient along it. Below this, the curvature is rounding noise.
MIN_COSINE = 1e-6


@dataclass(frozen=True)
class Lbfgs:
    """Limited-memory BFGS in a box: two-loop recursion, backtracking by Armijo's rule along the projected path.

    Every evaluation serves all images. One whose value fell enough is accepted, its curvature remembered and a new
    direction taken; the others try a shorter step from where they were.

    References:
        Nocedal and Wright 2006, "Numerical optimization", algorithm 7.4 (two-loop recursion), equation 3.4 (Armijo).
        Bertsekas 1982, "Projected Newton methods for optimization problems with simple constraints": Armijo's rule
        on the projected step, and pixels that the gradient pushes against a bound are left out.

    Attributes:
        memory: number of steps whose curvature is remembered.
        decrease: part of the fall predicted by the gradient that a step must bring.
        max_trials: failed trials along one direction, after which the steepest descent is tried.
    """

    memory: int = 6
    decrease: float = 1e-4
    max_trials: int = 6

    searches: ClassVar[bool] = True

    def initial(self, images: tf.Tensor) -> State:
        pixels, numbers = tf.zeros_like(images), tf.zeros(tf.shape(images)[:1])
        state = dict.fromkeys(("base", "base_gradient", "direction"), pixels)
        state |= dict.fromkeys(("base_value", "length", "trials", "gamma"), numbers)
        for age in range(self.memory):
            state |= {f"step_{age}": pixels, f"change_{age}": pixels, f"weight_{age}": numbers}
        return state

    def propose(self, state: State, at: Evaluation, box: Box) -> tuple[tf.Tensor, State]:
        moved = at.images - state["base"]
        predicted = tf.minimum(dot(state["base_gradient"], moved), 0.0)
        accepted = at.fresh | (at.values <= state["base_value"] + self.decrease * predicted)
        trials = tf.where(accepted, 0.0, state["trials"] + 1.0)
        failed = trials >= self.max_trials
        turn = accepted | failed
        history = self._history(state, at, accepted & ~at.fresh)
        # After such a failure, nothing that was learnt about the curvature holds.
        history = {
            name: tf.where(failed, 0.0, kept) if kept.shape.rank == 1 else kept for name, kept in history.items()
        }
        base = select(accepted, at.images, state["base"])
        gradient = select(accepted, at.gradients, state["base_gradient"])

        steepest = tf.where(box.free(base, gradient), -gradient, 0.0)
        quasi_newton = tf.where(steepest == 0, 0.0, self._two_loop(history, steepest))
        newton = dot(quasi_newton, gradient) < 0
        direction = select(turn, select(newton, quasi_newton, steepest), state["direction"])
        first = tf.math.divide_no_nan(at.rates, _root_mean_square(steepest))
        shorter = state["length"] * _shrink(at.values - state["base_value"], predicted)
        length = tf.where(turn, tf.where(newton, 1.0, first), shorter)
        kept = {
            "base": base,
            "base_value": tf.where(accepted, at.values, state["base_value"]),
            "base_gradient": gradient,
            "direction": direction,
            "length": length,
            "trials": tf.where(failed, 0.0, trials),
        }
        return box.project(base + per_image(length) * direction), history | kept

    def _history(self, state: State, at: Evaluation, accepted: tf.Tensor) -> State:
        """The remembered steps, the newest as number 0."""
        step = at.images - state["base"]
        change = at.gradients - state["base_gradient"]
        curvature, square = dot(step, change), dot(change, change)
        # If the slope did not rise along the step, the next direction would lead uphill.
        good = accepted & (curvature > MIN_COSINE * tf.sqrt(square * dot(step, step)))
        # A step to forget also enters, with weight 0, and pushes the oldest out, so that all images shift alike.
        history = {
            "step_0": select(good, step, tf.zeros_like(step)),
            "change_0": select(good, change, tf.zeros_like(change)),
            "weight_0": tf.where(good, tf.math.divide_no_nan(1.0, curvature), 0.0),
            "gamma": tf.where(good, tf.math.divide_no_nan(curvature, square), tf.where(at.fresh, 0.0, state["gamma"])),
        }
        for age in range(1, self.memory):
            history[f"step_{age}"] = state[f"step_{age - 1}"]
            history[f"change_{age}"] = state[f"change_{age - 1}"]
            history[f"weight_{age}"] = tf.where(at.fresh, 0.0, state[f"weight_{age - 1}"])
        return history

    def _two_loop(self, history: State, vector: tf.Tensor) -> tf.Tensor:
        """The inverse Hessian, as the history approximates it, times the vector; 0 without a history."""
        parts = []
        for age in range(self.memory):
            part = history[f"weight_{age}"] * dot(history[f"step_{age}"], vector)
            vector -= per_image(part) * history[f"change_{age}"]
            parts.append(part)
        vector *= per_image(history["gamma"])
        for age in reversed(range(self.memory)):
            part = parts[age] - history[f"weight_{age}"] * dot(history[f"change_{age}"], vector)
            vector += per_image(part) * history[f"step_{age}"]
        return vector


def _shrink(rise: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """The factor that shortens a step to the minimum of the parabola through the known values, from 0.1 to 0.5."""
    return tf.clip_by_value(tf.math.divide_no_nan(-predicted, 2 * (rise - predicted)), 0.1, 0.5)


def _root_mean_square(images: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_mean(tf.square(images), axis=(1, 2, 3)))
