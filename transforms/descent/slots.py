"""Optimize the generated images of many pairs, a few at a time: a pair that is done makes room for the next.

A batch has slots. The number of steps differs ten-fold and more between pairs, so a batch that waits for its slowest
pair spends most of its time waiting. Here the first pair to stop leaves, and the next one enters; when none is left,
the batch shrinks. Every evaluation is of pairs that still run.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from transforms.descent import loop
from transforms.descent.methods import State
from transforms.descent.settings import Descent
from transforms.losses.objective_function import IMAGES, ObjectiveFunction, References
from transforms.losses.pair import as_images
from transforms.losses.plan import EvaluationError


@dataclass(frozen=True)
class Start:
    """A pair to optimize.

    Attributes:
        key: handed on to the result.
        generated: uint8 or uint16 [H, W, 3], RGB, full range, or float32 in [0, 1]. The descent starts from this image
            at 8 bits, and limits changes from there, so that the result can be compared with it.
        target: the same; more than 8 bits are kept.
    """

    key: Hashable
    generated: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Optimized:
    """A pair at the end of its descent.

    Attributes:
        key: of the start.
        image: uint8 [H, W, 3]: the best image, the last one or the start, each rounded: the one of lowest objective.
        objective_initial: of the start at 8 bits.
        objective_final: the lowest of the descent, before rounding.
        objective_of_saved: of `image` as it is; never above `objective_initial`.
        steps: how many were made, of one evaluation each, after that of the start.
        stop_reason: a key of `STOP_REASONS`.
        trace: (step, objective) of every `trace_every`-th step and of the last.
    """

    key: Hashable
    image: np.ndarray
    objective_initial: float
    objective_final: float
    objective_of_saved: float
    steps: int
    stop_reason: str
    trace: tuple[tuple[int, float], ...] = ()


def optimize_pairs(
    starts: Iterable[Start], objective: ObjectiveFunction, descent: Descent, slots: int
) -> Iterator[Optimized]:
    """Optimize pairs of one shape, and yield each when it is done.

    A pair's result depends on no other pair. Starts are taken only as slots become free.

    Args:
        starts: pairs of one size, not smaller than the objective's `smallest_side`.
        objective: to minimize.
        descent: how to descend, and when to stop.
        slots: the largest number of pairs at a time. A slot takes the memory of a pass through the network and back,
            and of its target's features.

    Raises:
        ValueError: `slots` is below 1.
        EvaluationError: TensorFlow failed, usually for lack of memory.
    """
    if slots < 1:
        raise ValueError(f"slots is {slots}; it must be 1 or more")
    engine = _engine(objective, descent)
    queue = iter(starts)
    running: list[_Running] = []
    rows: _Rows | None = None
    while True:
        entering = [_Running.of(start) for start in islice(queue, slots - len(running))]
        running += entering
        if not running:
            return
        with _evaluation_errors(), objective.device.scope(), objective.device.turn():
            objective.check_memory(sum(pair.original[..., 0].size for pair in running))
            rows = engine.advance(engine.enter(rows, running, entering), running)
            stopped = np.flatnonzero(rows.progress.stop[: len(running)] != loop.RUNNING)
            if not len(stopped):
                continue
            done = engine.finish(_take(rows._replace(state={}), stopped), [running[row] for row in stopped])
            left = np.setdiff1d(np.arange(len(running)), stopped)
            rows = _take(rows, engine.filled(left)) if len(left) else None
        running = [running[row] for row in left]
        yield from done


class _Rows(NamedTuple):
    """All tensors of the pairs in the batch. The first axis of each is the pair; rows behind the last pair are void."""

    progress: loop.Progress
    state: State
    references: References


@dataclass(frozen=True)
class _Running:
    """A pair in the batch, without its tensors.

    Attributes:
        key: of the start.
        original: the generated image at 8 bits.
        target: as given.
        curve: (step, objective) of every evaluation so far.
    """

    key: Hashable
    original: np.ndarray
    target: np.ndarray
    curve: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def of(cls, start: Start) -> "_Running":
        original = start.generated
        if original.dtype != np.uint8:
            levels = original * np.float32(255) if original.dtype == np.float32 else original / 257
            original = np.rint(levels).astype(np.uint8)
        return cls(start.key, original, start.target)


class _Engine:
    """The graphs of an objective and a descent. One trace of each serves any number and size of images."""

    def __init__(self, objective: ObjectiveFunction, descent: Descent):
        self.objective = objective
        self.descent = descent
        compiled = partial(tf.function, autograph=False)
        self._begin = compiled(partial(loop.begin, descent=descent), input_signature=[IMAGES])
        self._references = compiled(objective.references, input_signature=[IMAGES])
        rows = [
            tf.nest.map_structure(_spec, function.get_concrete_function().structured_outputs)
            for function in (self._begin, self._references)
        ]
        (progress, state), references = rows
        # XLA fuses element-wise operations, but compiles anew for every shape. That pays on a GPU, where it compiles
        # quickly, and not on a CPU, where it loses the fast convolutions.
        self._advance = compiled(
            partial(loop.advance, objective=objective, descent=descent),
            input_signature=[progress, state, references, tf.TensorSpec([], tf.int32)],
            jit_compile=objective.device.on_gpu,
        )
        self._value = compiled(objective.value, input_signature=[IMAGES, references])

    def filled(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of rows, with the first repeated behind them up to the size of batch that suits the device."""
        size = self.objective.device.batch(len(rows))
        return np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])

    def enter(self, rows: _Rows | None, running: Sequence[_Running], entering: Sequence[_Running]) -> _Rows:
        """The rows of the running pairs, of which the last ones enter."""
        if rows and not entering:
            return rows
        _check_size(entering, self.objective.smallest_side)
        batch = [entering[row] for row in self.filled(np.arange(len(entering)))]
        progress, state = self._begin(as_images(np.stack([pair.original for pair in batch])))
        # Each by itself: their types may differ.
        targets = tf.stack([as_images(pair.target) for pair in batch])
        new = _Rows(progress, state, self._references(targets))
        if rows is None:
            return new
        before = len(running) - len(entering)
        whole = tf.nest.map_structure(lambda old, added: tf.concat([old[:before], added], 0), rows, new)
        wanted = self.filled(np.arange(len(running)))
        return whole if len(wanted) == before + len(batch) else _take(whole, wanted)

    def advance(self, rows: _Rows, running: Sequence[_Running]) -> _Rows:
        """The rows some steps later: when one of them stops, or after `loop.STEPS_PER_CALL` steps."""
        first = rows.progress.steps.numpy()
        progress, state, values = self._advance(*rows, len(running))
        if self.descent.trace_every:
            stop = progress.steps.numpy() + (progress.stop.numpy() != loop.RUNNING)
            curves = values.numpy().T.tolist()
            for row, pair in enumerate(running):
                pair.curve.extend(zip(range(first[row], stop[row]), curves[row], strict=False))
        return _Rows(progress, state, rows.references)

    def finish(self, rows: _Rows, pairs: Sequence[_Running]) -> list[Optimized]:
        """The results of pairs that have stopped."""
        progress = loop.Progress(*(tensor.numpy() for tensor in rows.progress))
        images = [pair.original for pair in pairs]
        values = progress.initial.copy()
        for candidates in (progress.best_image, progress.image):
            rounded = np.rint(candidates * np.float32(255)).astype(np.uint8)
            others = np.flatnonzero([not np.array_equal(*both) for both in zip(images, rounded, strict=True)])
            if len(others):
                found = self._value(as_images(rounded[others]), _take(rows, others).references).numpy()
                for row, value in zip(others, found, strict=True):
                    if value < values[row]:
                        images[row], values[row] = rounded[row], value
        return [
            Optimized(
                pair.key,
                images[row],
                float(progress.initial[row]),
                float(progress.best[row]),
                float(values[row]),
                int(progress.steps[row]),
                loop.REASONS[int(progress.stop[row])],
                _every(pair.curve, self.descent.trace_every),
            )
            for row, pair in enumerate(pairs)
        ]


# Tracing takes seconds, and a worker meets the same objective and descent for every size of image.
_engine = lru_cache(maxsize=2)(_Engine)


def _every(curve: Sequence[tuple[int, float]], steps: int) -> tuple[tuple[int, float], ...]:
    """The points of every `steps`-th step, and the last."""
    return tuple(point for point in curve if point[0] % steps == 0 or point is curve[-1])


def _take(rows: _Rows, indices: np.ndarray) -> _Rows:
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, indices), rows)


def _spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _check_size(pairs: Sequence[_Running], smallest_side: int) -> None:
    for pair in pairs:
        assert pair.original.shape == pair.target.shape, "the two images of a pair have one size"
        assert min(pair.original.shape[:2]) >= smallest_side, "the caller leaves out what the objective cannot see"


@contextmanager
def _evaluation_errors() -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        raise EvaluationError(f"{type(error).__name__}: {error}") from error
