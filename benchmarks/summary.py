"""Measures the cost and the accuracy of summaries: `python -m benchmarks.summary`.

Prints the time to summarize a chunk and to merge many summaries, and the largest error of a quantile of a million
values.
"""

import sys
import time

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from transforms.columns import Column
from transforms.losses.plan import Plan
from transforms.schema import PRECISION_KEY, Chunk, ScoredChunk, metrics_schema
from transforms.steps import SummarizeChunks
from transforms.summary.distribution import QUANTILES, distributions
from transforms.summary.summary import Summary

CHUNKS = 10_000
CHUNK_PAIRS = 256
COLUMNS = Plan(("lpips_vgg", "ssim", "psnr", "gmsd", "sobel_l1", "fd_l1")).columns
VALUES = 1_000_000

# Number of distinct chunks, whose summaries are merged repeatedly.
DIFFERENT_CHUNKS = 50


def main() -> int:
    """Measure, and print the tables."""
    console = Console(width=110)
    console.print(_costs(), _errors(), sep="\n")
    return 0


def _costs() -> Table:
    random = np.random.default_rng(0)
    chunks = [scored_chunk(random) for _ in range(DIFFERENT_CHUNKS)]
    started = time.perf_counter()
    summaries = [Summary.of_chunk(chunk, COLUMNS) for chunk in chunks]
    summarized = time.perf_counter()
    many = [summaries[number % DIFFERENT_CHUNKS] for number in range(CHUNKS)]
    begun = time.perf_counter()
    SummarizeChunks(COLUMNS).merge_accumulators(many)
    merged = time.perf_counter()
    table = Table("step", "time")
    milliseconds = (summarized - started) / DIFFERENT_CHUNKS * 1e3
    table.add_row(f"summarize a chunk of {CHUNK_PAIRS} pairs, {len(COLUMNS)} columns", f"{milliseconds:.2f} ms")
    table.add_row(f"merge {CHUNKS} such summaries", f"{merged - begun:.2f} s")
    return table


def _errors() -> Table:
    random = np.random.default_rng(1)
    (mae,) = Plan(("mae",)).columns
    awkward = {
        "uniform": random.random(VALUES),
        "lognormal, sigma 4": random.lognormal(0, 4, VALUES),
        "normal, around 0": random.normal(size=VALUES),
        "two peaks, far apart": np.concatenate([random.normal(1e-6, 1e-8, VALUES // 2), random.random(VALUES // 2)]),
        "mostly zero": random.random(VALUES) * (random.random(VALUES) < 0.3),
        "Cauchy": random.standard_cauchy(VALUES),
        "ten values": random.integers(1, 11, VALUES).astype(float),
    }
    table = Table("distribution of a million values", "largest relative error of a quantile")
    for name, values in awkward.items():
        metrics = _metrics({mae: values})
        exact = np.quantile(metrics["mae"].to_numpy().astype(np.float64), QUANTILES, method="inverted_cdf")
        distribution = distributions(metrics, [mae])["mae"]
        found = np.array([distribution.quantile(fraction) for fraction in QUANTILES])
        error = np.abs(found - exact) / np.where(exact == 0, 1, np.abs(exact))
        table.add_row(name, f"{error.max():.2%}")
    return table


def scored_chunk(random: np.random.Generator) -> ScoredChunk:
    """A chunk with random values of `COLUMNS`."""
    metrics = _metrics({column: random.lognormal(-2, 0.7, CHUNK_PAIRS) for column in COLUMNS})
    return ScoredChunk(Chunk("chunk", "pairs.parquet", "parquet", 0, CHUNK_PAIRS), metrics)


def _metrics(columns: dict[Column, np.ndarray]) -> pa.Table:
    count = len(next(iter(columns.values())))
    sources = [f"pairs.parquet#{number}" for number in range(count)]
    sides = pa.array([256] * count, pa.int32())
    arrays = [pa.array(values.astype(np.float32)) for values in columns.values()]
    notes = pa.array([[]] * count, pa.list_(pa.string()))
    schema = metrics_schema(tuple(columns)).with_metadata({PRECISION_KEY: "float32"})
    return pa.table([sources, sources, sides, sides, *arrays, notes], schema=schema)


if __name__ == "__main__":
    sys.exit(main())
