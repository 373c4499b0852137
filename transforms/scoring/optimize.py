"""Optimize the generated images of a chunk towards their targets, and score them before and after."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from PIL import Image

from transforms.descent.settings import Descent
from transforms.images.decode import DecodePolicy
from transforms.images.pairs import DecodedPair
from transforms.losses.plan import EvaluationError, Plan
from transforms.schema import OPTIMIZED_SCHEMA, EncodedChunk, ScoredChunk, optimization_fields
from transforms.scoring.batch import Batching
from transforms.scoring.decode_ahead import decode_timed
from transforms.scoring.score import Evaluate, StartedChunk, score_chunk, start_chunk
from transforms.worker.sandbox import Sandbox
from transforms.worker.stopwatch import add_beside, lap
from transforms.worker.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from transforms.descent.slots import Optimized, Start
    from transforms.losses.devices import Device
    from transforms.losses.evaluate import Evaluator
    from transforms.losses.objective_function import ObjectiveFunction

# Note of a pair that was scored but could not be optimized. A pair too small for the objective gets
# `too_small:objective` instead, one beyond `Plan.max_gradient_pixels` the other note.
NOT_OPTIMIZED = "optimization_failed"
TOO_LARGE = "too_large:optimizing"


@dataclass(frozen=True)
class Optimizer:
    """The networks of one plan, loaded to score and to differentiate."""

    evaluator: "Evaluator"
    objective: "ObjectiveFunction"

    @property
    def device(self) -> "Device":
        """The device that holds the networks."""
        return self.evaluator.device


def load_optimizer(plan: Plan, device: "Device | None" = None) -> Optimizer:
    """An optimizer with its networks loaded on the device, by default the first."""
    import_tensorflow()
    from transforms.losses.evaluate import Evaluator
    from transforms.losses.networks.loaded import Networks
    from transforms.losses.objective_function import ObjectiveFunction

    networks = Networks(plan, device, descends=True)
    return Optimizer(Evaluator(plan, networks), ObjectiveFunction(plan, networks))


def optimize_chunk(
    started: StartedChunk,
    optimizer: Optimizer,
    on_done: Callable[[int], object] | None = None,
    *,
    descent: Descent,
) -> ScoredChunk:
    """Score the pairs of a chunk, optimize their generated images, and score the optimized ones.

    Args:
        started: the chunk.
        optimizer: computes the losses and the objective's gradient.
        on_done: called with the number of pairs whenever some are optimized or have failed.
        descent: how to descend, and when to stop.

    Returns:
        as `score_chunk`, with the fields of `optimization_fields` in the metrics and the table of `OPTIMIZED_SCHEMA`.
        A pair that could not be optimized keeps its metrics and gets nulls and a note.
    """
    done = on_done or (lambda _: None)
    plan = optimizer.evaluator.plan
    encoded, policy, batching, sandbox = started.encoded, started.policy, started.batching, started.sandbox
    before = score_chunk(started, optimizer.evaluator)
    done(encoded.chunk.pairs - len(before.metrics))
    # The scored records, in the order of the metrics.
    position = {source: index for index, source in enumerate(encoded.pairs["source"].to_pylist())}
    records = _take(encoded.pairs, [position[source] for source in before.metrics["source"].to_pylist()])
    results: dict[int, Optimized] = {}
    failed: set[int] = set()
    starts = partial(_starts, records, policy=policy, sandbox=sandbox)
    with lap("optimizing"):
        for rows, slots in _groups(before.metrics, plan, batching):
            for row, result in optimize_rows(starts, rows, slots, optimizer.objective, descent):
                if result is None:
                    failed.add(row)
                else:
                    results[row] = result
                done(1)
    done(len(before.metrics) - len(results) - len(failed))
    images = {row: _png(result.image) for row, result in results.items()}
    after = _score_again(encoded, records, images, optimizer.evaluator, policy, batching, sandbox)
    metrics = _with_outcome(before.metrics, results, failed, after, plan, descent)
    kept = _take(records.select(["id", "source"]), sorted(images))
    optimized = kept.append_column(
        OPTIMIZED_SCHEMA.field("image"), pa.array(map(images.get, sorted(images)), pa.binary())
    )
    return replace(before, metrics=metrics, optimized=optimized.cast(OPTIMIZED_SCHEMA))


def _groups(metrics: pa.Table, plan: Plan, batching: Batching) -> Iterator[tuple[list[int], int]]:
    """Rows of one size, and the number of slots for that size. Sizes too small or too large are left out."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for row, size in enumerate(zip(metrics["height"].to_pylist(), metrics["width"].to_pylist(), strict=True)):
        sizes.setdefault(size, []).append(row)
    for (height, width), rows in sizes.items():
        if plan.differentiated(height, width):
            yield rows, batching.pairs_of(height, width)


def optimize_rows(
    starts: "Callable[[Sequence[int]], Iterable[Start]]",
    rows: Sequence[int],
    slots: int,
    objective: "ObjectiveFunction",
    descent: Descent,
) -> "Iterator[tuple[int, Optimized | None]]":
    """Optimize pairs of one size, with half the slots after each failure. A pair that fails alone yields None.

    Args:
        starts: the pairs of some of the rows, by their number.
        rows: numbers of the pairs.
        slots: most pairs at a time.
        objective: to minimize.
        descent: how to descend, and when to stop.
    """
    from transforms.descent.slots import optimize_pairs

    left = dict.fromkeys(rows)
    while left:
        try:
            for result in optimize_pairs(starts(tuple(left)), objective, descent, slots):
                row = cast(int, result.key)
                del left[row]
                yield row, result
            # Decoded once, these took too much time or memory when they were decoded again.
            yield from ((row, None) for row in left)
            return
        except EvaluationError:
            if slots == 1:
                (failed,) = islice(left, 1)
                del left[failed]
                yield failed, None
            slots = max(1, slots // 2)


def _starts(records: pa.Table, rows: Sequence[int], policy: DecodePolicy, sandbox: Sandbox) -> "Iterator[Start]":
    from transforms.descent.slots import Start

    for row in rows:
        encoded = (records["generated"][row].as_py(), records["target"][row].as_py())
        with lap("waiting_for_decoding"):
            (pair,), seconds = decode_timed([encoded], policy, sandbox)
        add_beside("decoding", seconds)
        if isinstance(pair, DecodedPair):
            yield Start(row, pair.generated, pair.target)


def _score_again(
    encoded: EncodedChunk,
    records: pa.Table,
    images: dict[int, bytes],
    evaluator: Evaluate,
    policy: DecodePolicy,
    batching: Batching,
    sandbox: Sandbox,
) -> dict[str, dict[str, object]]:
    """Score the optimized images, decoded from the bytes that are saved; the rows of metrics by source."""
    rows = sorted(images)
    saved = _take(records, rows)
    index = saved.schema.get_field_index("generated")
    saved = saved.set_column(index, "generated", pa.array(map(images.get, rows), pa.binary()))
    # The limit is for the input: a saved image is noise in its lowest bits, and may be larger than that.
    admitted = max([policy.max_image_bytes, *map(len, images.values())])
    policy = replace(policy, max_image_bytes=admitted)
    saved_chunk = replace(encoded, pairs=saved, failures=())
    scored = score_chunk(start_chunk(saved_chunk, evaluator.plan, policy, batching, sandbox), evaluator)
    return {row["source"]: row for row in scored.metrics.to_pylist()}


def _with_outcome(
    metrics: pa.Table,
    results: "dict[int, Optimized]",
    failed: set[int],
    after: dict[str, dict[str, object]],
    plan: Plan,
    descent: Descent,
) -> pa.Table:
    """Insert the fields of `optimization_fields` into the metrics, before the notes."""
    sources = metrics["source"].to_pylist()
    outcomes = [results.get(row) for row in range(len(sources))]
    notes_at = metrics.schema.get_field_index("notes")
    notes = metrics["notes"].to_pylist()
    sizes = zip(metrics["height"].to_pylist(), metrics["width"].to_pylist(), strict=True)
    for row, (height, width) in enumerate(sizes):
        if row in failed:
            notes[row].append(NOT_OPTIMIZED)
        elif height * width > plan.max_gradient_pixels:
            notes[row].append(TOO_LARGE)
    table = metrics.set_column(notes_at, metrics.schema.field(notes_at), pa.array(notes, pa.list_(pa.string())))
    before = {column.loss: column.name for column in plan.columns}
    again = {column.name: before[column.loss] for column in plan.optimization_columns if column.loss}
    for added in optimization_fields(plan.optimization_columns, bool(descent.trace_every)):
        name = added.name
        values: list[Any]
        if name == "trace":
            values = [r and [{"step": step, "objective": value} for step, value in r.trace] for r in outcomes]
        elif name in again:
            values = [after.get(source, {}).get(again[name]) for source in sources]
        else:
            values = [r and getattr(r, name) for r in outcomes]
        table = table.add_column(table.schema.get_field_index("notes"), added, pa.array(values, added.type))
    return table


def _take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    return table.take(pa.array(rows, pa.int64()))


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    # The fastest compression: a descent leaves noise in the lowest bits, which no effort makes smaller.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
