"""Score a chunk: decode ahead in threads, batch by shape, evaluate the losses."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from transforms.failure import Failure, row_failure
from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.pairs import DecodedPair
from transforms.images.sandboxed import EncodedPair
from transforms.losses.plan import EvaluationError, Plan
from transforms.row_keys import CANDIDATE, row_key
from transforms.schema import (
    BACKEND_KEY,
    DEVICE_KEY,
    PRECISION_KEY,
    EncodedChunk,
    ScoredChunk,
    encoded_schema,
    metrics_schema,
)
from transforms.scoring.batch import Batching, P, batch_by_shape
from transforms.scoring.decode_ahead import DecodeAhead
from transforms.scoring.encoded_pairs import encoded_pairs
from transforms.scoring.model_cache import load_once
from transforms.work import MOST_NAMED
from transforms.worker.sandbox import Sandbox
from transforms.worker.stopwatch import lap, name_pairs

if TYPE_CHECKING:
    from transforms.losses.devices import Device
    from transforms.losses.evaluate import Evaluator

# Note of a pair that the GPU had no memory for.
SCORED_ON_CPU = "scored_on_cpu"

# The reasons for which a decoded pair can fail.
SCORE_REASONS = {
    "evaluation_failed": "the losses of this pair alone could not be computed; the message says why",
    "empty_mask": "no pixel lies in the mask: none is brighter than the middle of its range, or only the border is",
}


_EMPTY_MASK = (
    "No pixel within the border is brighter than the middle of the mask's range; a mask of 0 and 1 has to be stored "
    "as 0 and 255."
)


class Evaluate(Protocol):
    """The part of an `Evaluator` that scoring uses."""

    plan: Plan
    precision: str
    backend: str
    device: "Device"

    def __call__(
        self, generated: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None
    ) -> dict[str, np.ndarray]: ...


def load_evaluator(plan: Plan, device: "Device | None" = None) -> "Evaluator":
    """An evaluator with its networks loaded on the device, by default the first.

    Example:
        >>> import numpy as np
        >>> evaluator = load_evaluator(Plan(("mae", "psnr")))
        >>> images = np.zeros((1, 8, 8, 3), np.uint8)
        >>> evaluator(images + np.uint8(51), images)["mae"]
        array([0.2], dtype=float32)
    """
    from transforms.losses.evaluate import Evaluator
    from transforms.losses.networks.loaded import Networks

    return Evaluator(plan, Networks(plan, device))


@dataclass(frozen=True)
class StartedChunk:
    """A chunk whose pairs are being decoded.

    Attributes:
        encoded: the chunk's records.
        policy, batching, sandbox: as for `start_chunk`.
        order: the rows in the order in which they are decoded.
        decoded: in this order, what the pairs decode to.
    """

    encoded: EncodedChunk
    policy: DecodePolicy
    batching: Batching
    sandbox: Sandbox
    order: Sequence[int]
    decoded: DecodeAhead


def start_chunk(
    encoded: EncodedChunk,
    plan: Plan,
    policy: DecodePolicy = DecodePolicy(),
    batching: Batching = Batching(),
    sandbox: Sandbox = Sandbox(),
) -> StartedChunk:
    """Begin to decode the pairs of a chunk, as many as may wait for the network.

    Args:
        encoded: the chunk's records.
        plan: what they will be scored by.
        policy: which images to admit, and how to convert them.
        batching: size of the batches.
        sandbox: decodes the images.
    """
    images = encoded_pairs(encoded.pairs, plan.protocol.masked)
    order = _candidates_together(images)
    decoded = DecodeAhead([images[row] for row in order], policy, sandbox, batching)
    return StartedChunk(encoded, policy, batching, sandbox, order, decoded)


def score_chunk(
    started: StartedChunk, evaluator: Evaluate, on_done: Callable[[int], object] | None = None
) -> ScoredChunk:
    """Score the pairs of a chunk.

    Args:
        started: the chunk.
        evaluator: computes the losses.
        on_done: called with the number of pairs whenever some are scored or have failed.

    Returns:
        metrics in file order, and a failure for each pair without metrics.
    """
    encoded = started.encoded
    pairs = encoded.pairs
    result = _Rows(pairs, evaluator.plan)
    failed: dict[int, Failure] = {}
    seconds = np.zeros(len(pairs))

    def fail(position: int, stage: str, reason: str, message: str, data: bytes | None = None) -> None:
        failed[position] = row_failure(pairs, position, stage, reason, message, data)
        done(1)

    def done(number: int) -> None:
        if on_done:
            on_done(number)

    def good_pairs(decoded: Iterable[tuple[DecodedPair | DecodeError, float]]) -> Iterator[_ChunkPair]:
        for position, (outcome, taken) in zip(started.order, decoded, strict=True):
            seconds[position] = taken
            if isinstance(outcome, DecodedPair) and _lies_in(outcome.mask, evaluator.plan):
                yield _ChunkPair(outcome.generated, outcome.target, outcome.notes, outcome.mask, position)
            elif isinstance(outcome, DecodedPair):
                fail(position, "score", "empty_mask", _EMPTY_MASK)
            else:
                data = None if outcome.image == "pair" else pairs[outcome.image][position].as_py()
                named = "The mask: " if outcome.image == "mask" else ""
                fail(position, "decode", outcome.reason, f"{named}{outcome.message}", data)

    # Counting the failures would not do: a single one may stand for the whole chunk.
    done(encoded.chunk.pairs - len(pairs))
    for group in batch_by_shape(good_pairs(started.decoded), started.batching):
        begun = time.perf_counter()
        for part, columns in evaluate_group(evaluator, group):
            notes: tuple[str, ...] = ()
            if isinstance(columns, EvaluationError) and evaluator.device.on_gpu:
                ((part, columns),) = evaluate_group(_on_cpu(evaluator.plan), part)
                notes = (SCORED_ON_CPU,)
            if isinstance(columns, EvaluationError):
                fail(part[0].position, "score", "evaluation_failed", str(columns))
            else:
                result.put(part, columns, notes)
                done(len(part))
            seconds[[pair.position for pair in part]] += (time.perf_counter() - begun) / len(part)
            begun = time.perf_counter()
    _name_pairs(pairs, seconds, result.size)
    failures = (*encoded.failures, *(failed[position] for position in sorted(failed)))
    return ScoredChunk(encoded.chunk, result.table(pairs, evaluator), failures)


def _name_pairs(pairs: pa.Table, seconds: np.ndarray, size: np.ndarray) -> None:
    """Name the pairs that took longest, and those of most pixels."""

    def named(numbers: np.ndarray) -> dict[str, Any]:
        first = np.argsort(-numbers, kind="stable")[:MOST_NAMED]
        rows = zip(keys.take(first).to_pylist(), numbers[first].tolist(), strict=True)
        return {row_key(row): number for row, number in rows if number}

    keys = pairs.select([name for name in ("id", CANDIDATE) if name in pairs.schema.names])
    name_pairs(named(seconds), named(size.astype(np.int64).prod(axis=1)))


def _lies_in(mask: np.ndarray | None, plan: Plan) -> bool:
    """Tell whether any pixel within the border lies in the mask, if there is one."""
    return mask is None or bool(plan.protocol.inside(mask[np.newaxis]).any())


def _on_cpu(plan: Plan) -> "Evaluator":
    from transforms.losses.devices import CPU

    return load_once(load_evaluator, plan, device=CPU)


@dataclass(frozen=True)
class _ChunkPair(DecodedPair):
    """A decoded pair and its row in the chunk."""

    position: int = 0


def _candidates_together(encoded: Sequence[EncodedPair]) -> list[int]:
    """The rows in their order, but those with the target of an earlier one behind it: a batch then shares targets."""
    first: dict[int, int] = {}
    targets = [pair[1] for pair in encoded]
    keys = [row if target is None else first.setdefault(id(target), row) for row, target in enumerate(targets)]
    return sorted(range(len(encoded)), key=keys.__getitem__)


def evaluate_group(
    evaluator: Evaluate, group: Sequence[P]
) -> Iterator[tuple[Sequence[P], dict[str, np.ndarray] | EvaluationError]]:
    """Evaluate a group. If that fails, evaluate each half, so that in the end at most single pairs fail."""
    try:
        masks = [pair.mask for pair in group if pair.mask is not None]
        images = ([pair.generated for pair in group], [pair.target for pair in group], *([masks] if masks else []))
        with lap("losses"):
            columns = evaluator(*map(_stack, images))
    except EvaluationError as error:
        if len(group) == 1:
            yield group, error
            return
    else:
        yield group, columns
        return
    # Outside of `except`, because the error keeps the batch's arrays alive and memory may be short.
    half = len(group) // 2
    yield from evaluate_group(evaluator, group[:half])
    yield from evaluate_group(evaluator, group[half:])


def _stack(images: Sequence[np.ndarray]) -> np.ndarray:
    # A copy of a single large image would be the largest array of the process.
    return np.stack(images) if len(images) > 1 else images[0][np.newaxis]


class _Rows:
    """The metrics of a chunk, filled in any order."""

    def __init__(self, pairs: pa.Table, plan: Plan):
        length = len(pairs)
        self.plan = plan
        self.scored = np.zeros(length, bool)
        self.size = np.zeros((length, 2), np.int32)
        self.values = {column.name: np.zeros(length, np.float32) for column in plan.columns}
        self.defined = {column: np.zeros(length, bool) for column in self.values}
        noted = pairs["notes"].to_pylist() if "notes" in pairs.schema.names else [()] * length
        self.notes: list[tuple[str, ...]] = [tuple(notes) for notes in noted]

    def put(self, group: Sequence[_ChunkPair], columns: dict[str, np.ndarray], notes: tuple[str, ...]) -> None:
        positions = [pair.position for pair in group]
        height, width = group[0].generated.shape[:2]
        self.scored[positions] = True
        self.size[positions] = height, width
        for column, values in columns.items():
            self.values[column][positions] = values
            # Within a mask there may be nothing that a loss compares.
            self.defined[column][positions] = ~np.isnan(values) if self.plan.protocol.masked else True
        nulls = [column for column in self.values if not self.defined[column][positions].all()]
        why = {column: self.plan.why_null(column, height, width) for column in nulls}
        for pair in group:
            of_pair = (note for column, note in why.items() if not self.defined[column][pair.position])
            self.notes[pair.position] = (*self.notes[pair.position], *pair.notes, *notes, *of_pair)

    def table(self, pairs: pa.Table, evaluator: Evaluate) -> pa.Table:
        encoded = encoded_schema(masked=self.plan.protocol.masked).names
        keep = [column for column in pairs.schema if column.name not in (*encoded, "notes")]
        computed = {
            PRECISION_KEY: evaluator.precision,
            BACKEND_KEY: evaluator.backend,
            DEVICE_KEY: evaluator.device.kind,
        }
        schema = metrics_schema(self.plan.columns, keep).with_metadata(computed)
        arrays = {name: pairs[name] for name in ("id", "source", *(column.name for column in keep))}
        arrays |= {"height": pa.array(self.size[:, 0]), "width": pa.array(self.size[:, 1])}
        arrays |= {name: pa.array(self.values[name], mask=~self.defined[name]) for name in self.values}
        arrays["notes"] = pa.array(self.notes, pa.list_(pa.string()))
        return pa.table([arrays[name] for name in schema.names], schema=schema).filter(pa.array(self.scored))
