"""Chunks scored or optimized in one call."""

from collections.abc import Callable
from typing import Any

from transforms.descent.settings import Descent
from transforms.schema import EncodedChunk, ScoredChunk
from transforms.scoring.optimize import Optimizer, optimize_chunk
from transforms.scoring.score import Evaluate, score_chunk, start_chunk


def scored(
    chunk: EncodedChunk,
    evaluator: Evaluate,
    *settings: Any,
    on_done: Callable[[int], object] | None = None,
    **named: Any,
) -> ScoredChunk:
    """The chunk scored; the settings are those of `start_chunk`."""
    return score_chunk(start_chunk(chunk, evaluator.plan, *settings, **named), evaluator, on_done)


def optimized(
    chunk: EncodedChunk,
    optimizer: Optimizer,
    descent: Descent,
    *settings: Any,
    on_done: Callable[[int], object] | None = None,
    **named: Any,
) -> ScoredChunk:
    """The chunk optimized; the settings are those of `start_chunk`."""
    started = start_chunk(chunk, optimizer.evaluator.plan, *settings, **named)
    return optimize_chunk(started, optimizer, on_done, descent=descent)
