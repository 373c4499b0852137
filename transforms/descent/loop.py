"""The descent of a batch: steps of all its images, until the first of them stops."""

from typing import NamedTuple

import tensorflow as tf

from transforms.descent.lbfgs import Lbfgs
from transforms.descent.methods import Adam, Box, Evaluation, Method, Sgd, State, per_image, select
from transforms.descent.settings import STOP_REASONS, Descent
from transforms.losses.objective_function import ObjectiveFunction, References

# Most steps in one call of the graph. The call itself costs next to nothing beside them.
STEPS_PER_CALL = 10

# An image stops after more non-finite evaluations than this. Each sends it back to its best, at half the rate.
MAX_NON_FINITE = 4

# Divides the rate each time an image goes back to its best.
RATE_CUT = 2.0

RUNNING = 0
# By the number that stands for the reason in tensors.
REASONS = dict(enumerate(STOP_REASONS, start=1))
_CODES = {reason: code for code, reason in REASONS.items()}

_METHODS: dict[str, Method] = {"adam": Adam(), "sgd": Sgd(), "lbfgs": Lbfgs()}


class Progress(NamedTuple):
    """How far each image of a batch is. The first axis of every tensor is the image.

    Attributes:
        image: to be evaluated next; for one that has stopped, evaluated last.
        start: as it was given.
        best_image: the one of lowest objective so far.
        initial: objective of the start.
        best: objective of `best_image`.
        reference: objective at the last progress.
        stalled_steps: steps since then.
        steps: made so far.
        rate: learning rate.
        scale: factor of values and gradients.
        non_finite_count: non-finite evaluations.
        fresh: whether the method must forget what it has learnt.
        stop: `RUNNING`, or a number of `REASONS`.
    """

    image: tf.Tensor
    start: tf.Tensor
    best_image: tf.Tensor
    initial: tf.Tensor
    best: tf.Tensor
    reference: tf.Tensor
    stalled_steps: tf.Tensor
    steps: tf.Tensor
    rate: tf.Tensor
    scale: tf.Tensor
    non_finite_count: tf.Tensor
    fresh: tf.Tensor
    stop: tf.Tensor


def begin(images: tf.Tensor, descent: Descent) -> tuple[Progress, State]:
    """The progress of images before their first evaluation, and the method's first state.

    Args:
        images: float32 [B, H, W, 3] in [0, 1], in whole levels of 8 bits.
        descent: how to descend.
    """
    numbers = tf.zeros(tf.shape(images)[:1])
    whole = tf.zeros(tf.shape(images)[:1], tf.int32)
    progress = Progress(
        image=images,
        start=images,
        best_image=images,
        initial=numbers,
        best=numbers,
        reference=numbers,
        stalled_steps=whole,
        steps=whole,
        rate=numbers + descent.learning_rate,
        scale=numbers,
        non_finite_count=whole,
        fresh=tf.ones_like(whole, tf.bool),
        stop=whole + RUNNING,
    )
    return progress, _METHODS[descent.method].initial(images)


def advance(
    progress: Progress,
    state: State,
    references: References,
    images: tf.Tensor,
    objective: ObjectiveFunction,
    descent: Descent,
) -> tuple[Progress, State, tf.Tensor]:
    """Make steps until an image stops, at most `STEPS_PER_CALL`.

    Args:
        progress: of images none of which has stopped.
        state: of the method.
        references: of their targets.
        images: the number of images that count; behind them, the batch is filled up with others. int32.
        objective: to minimize.
        descent: how to descend, and when to stop.

    Returns:
        progress and state; drop the state's row of an image that has stopped, it is void.
        float32 [STEPS_PER_CALL, B]: the objective at each evaluation; NaN for steps that were not made.
    """

    def goes_on(number: tf.Tensor, values: tf.Tensor, progress: Progress, state: State) -> tf.Tensor:
        return (number < STEPS_PER_CALL) & tf.reduce_all((progress.stop == RUNNING) | void)

    def step(number: tf.Tensor, values: tf.Tensor, progress: Progress, state: State) -> tuple:
        value, gradient, _ = objective.value_and_gradient(progress.image, references)
        values = tf.tensor_scatter_nd_update(values, [[number]], [value])
        return number + 1, values, *_step(progress, state, value, gradient, descent)

    void = tf.range(tf.shape(progress.stop)[0]) >= images
    values = tf.fill([STEPS_PER_CALL, tf.shape(progress.image)[0]], float("nan"))
    variables = (tf.constant(0), values, progress, state)
    shapes = tf.nest.map_structure(lambda tensor: tensor.shape, variables)
    _, values, progress, state = tf.while_loop(goes_on, step, variables, shapes, parallel_iterations=1)
    return progress, state, values


def _step(
    progress: Progress, state: State, value: tf.Tensor, gradient: tf.Tensor, descent: Descent
) -> tuple[Progress, State]:
    """Judge an evaluation, and propose the next images."""
    method = _METHODS[descent.method]
    first = progress.steps == 0
    finite = tf.math.is_finite(value) & tf.reduce_all(tf.math.is_finite(gradient), axis=(1, 2, 3))
    gradient = select(finite, gradient, tf.zeros_like(gradient))
    box = _box(progress.start, descent)
    largest = tf.reduce_max(tf.where(box.free(progress.image, gradient), tf.abs(gradient), 0.0), axis=(1, 2, 3))

    initial = tf.where(first, value, progress.initial)
    better = finite & (first | (value < progress.best))
    further = finite & (first | (value < progress.reference - descent.rtol * tf.abs(progress.reference)))
    # An image that went back to its best is evaluated there a second time; that does not count as a stalled step.
    counts = ~progress.fresh
    stalled_steps = tf.where(first | further, 0, progress.stalled_steps + tf.cast(counts, tf.int32))
    back = ~finite | (counts & (stalled_steps == (descent.patience + 1) // 2))
    if not method.searches:
        # The steps are too long for an image that is close to its target.
        back |= value > initial
    judged = progress._replace(
        best_image=select(better, progress.image, progress.best_image),
        initial=initial,
        best=tf.where(first | better, value, progress.best),
        reference=tf.where(first | further, value, progress.reference),
        stalled_steps=stalled_steps,
        non_finite_count=tf.where(finite, progress.non_finite_count, progress.non_finite_count + 1),
        rate=tf.where(back, progress.rate / RATE_CUT, progress.rate),
        scale=tf.where(first, _scale(gradient, largest), progress.scale),
    )
    stop = _stop(judged, value, finite, largest, descent)
    running = stop == RUNNING

    evaluation = Evaluation(
        progress.image,
        tf.where(finite, value, 0.0) * judged.scale,
        gradient * per_image(judged.scale),
        judged.rate,
        progress.fresh,
    )
    proposed, state = method.propose(state, evaluation, box)
    onward = select(back, judged.best_image, proposed)
    return judged._replace(
        image=select(running, onward, progress.image),
        steps=tf.where(running, progress.steps + 1, progress.steps),
        fresh=back,
        stop=stop,
    ), state


def _stop(judged: Progress, value: tf.Tensor, finite: tf.Tensor, largest: tf.Tensor, descent: Descent) -> tf.Tensor:
    """Why each image stops here: a number of `REASONS` or `RUNNING`, int32 [B]."""
    reached = tf.zeros_like(finite)
    if descent.target_loss is not None:
        reached |= value <= descent.target_loss
    if descent.target_ratio is not None:
        reached |= (judged.initial > 0) & (judged.steps > 0) & (value <= descent.target_ratio * judged.initial)
    holds = {
        "non_finite": ~finite & ((judged.steps == 0) | (judged.non_finite_count > MAX_NON_FINITE)),
        "target_reached": finite & reached,
        "zero_gradient": finite & (largest == 0),
        "plateau": judged.stalled_steps >= descent.patience,
        "max_steps": judged.steps >= descent.max_steps,
    }
    stop = judged.stop
    for reason, code in _CODES.items():
        stop = tf.where((stop == RUNNING) & holds[reason], code, stop)
    return stop


def _box(start: tf.Tensor, descent: Descent) -> Box:
    change = descent.max_levels / 255
    return Box(tf.maximum(start - change, 0.0), tf.minimum(start + change, 1.0))


def _scale(gradient: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """One over the root mean square, relative to the largest, because squares of small numbers would vanish."""
    relative = tf.math.divide_no_nan(gradient, per_image(largest))
    root = tf.sqrt(tf.reduce_mean(tf.square(relative), axis=(1, 2, 3)))
    return tf.math.divide_no_nan(1.0, root * largest)
