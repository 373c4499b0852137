"""Measures how close the pipeline comes to its upper bounds: `python -m benchmarks.end_to_end`.

The bound of scoring is the network alone on batches in memory: VGG16 up to relu5_3, or AlexNet up to relu5. The bound
of `--preset=edges`, which needs no network, is decoding alone. One process measures everything on the same pairs, so
the ratios carry over to other machines.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.bounds import (
    DEFAULT,
    DISTINCT_PAIRS,
    SQUARE,
    Sizes,
    decoding_speed,
    losses_speed,
    network_speed,
    sample_batches,
    sample_pairs,
    sandbox_speed,
)
from pipeline.run import main as run
from pipeline.samples import write_parquet
from transforms.losses.devices import find_devices
from transforms.losses.plan import Plan
from transforms.scoring.batch import batching_for

MIXED = ((256, 256), (192, 320), (320, 240), (128, 128), (300, 200))
CANDIDATES = 5


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="length of each measurement (default: %(default)s)")
    seconds = parser.parse_args().seconds
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # This comes first, while this process has few threads and little memory.
        processes = _processes(directory)
        scoring, network = _scoring(seconds, directory)
        console.print("Pairs per second, and ratios to the network alone", scoring, sep="\n")
        edges = Table("pairs", "decoding", "in the sandbox", "pipeline", "sandbox/decoding", "pipeline/decoding")
        decoding = decoding_speed(SQUARE, seconds)
        sandbox = sandbox_speed(SQUARE, seconds)
        pipeline = pipeline_speed(SQUARE, round(seconds * decoding), directory, "--preset=edges")
        ratios = (f"{sandbox / decoding:.2f}", f"{pipeline / decoding:.2f}")
        edges.add_row("256x256", f"{decoding:.1f}", f"{sandbox:.1f}", f"{pipeline:.1f}", *ratios)
        console.print("Pairs per second, --preset=edges", edges, sep="\n")
        pairs = max(DISTINCT_PAIRS, round(seconds * network))
        one, five = (
            pipeline_speed(SQUARE, pairs, directory, "--precision=auto", candidates=number)
            for number in (1, CANDIDATES)
        )
        console.print(f"{CANDIDATES} candidates a target: {five:.1f} pairs/s, {five / one:.2f} times one's {one:.1f}")
        (few, (seconds, few_mib)), (many, (_, many_mib)) = processes.items()
        beyond = seconds - few / network
        console.print(f"cold: {few} pairs in {seconds:.1f} s, {beyond:.1f} s of it beyond the network's own")
        ratio = f"{many_mib / few_mib:.2f}"
        console.print(f"peak memory: {few_mib:.0f} MiB for {few} pairs, {many_mib:.0f} MiB for {many}, ratio {ratio}")
    return 0


def _scoring(seconds: float, directory: Path) -> tuple[Table, float]:
    """The table of scoring, and the pairs per second of the network alone as `--precision=auto` computes it."""
    columns = ("losses", "pairs", "precision", "backend", "network", "+ losses", "pipeline")
    table = Table(*columns, "losses/network", "pipeline/network")
    fastest = find_devices()[0].precision("auto", gradients=False)
    computed = dict.fromkeys((("float32", "tensorflow"), ("float32", "ncnn"), (fastest, "tensorflow")))
    network = 0.0
    for label, losses in (("lpips_alex", ("lpips_alex",)), ("default", DEFAULT)):
        for pairs, sizes in (("5 sizes", MIXED), ("256x256", SQUARE)):
            for precision, backend in computed:
                if backend == "ncnn" and Plan(losses).with_backend().backend != "ncnn":
                    continue
                speeds = scoring_speeds(sizes, precision, seconds, directory, backend, losses)
                network, *others = speeds
                ratios = (f"{speed / network:.2f}" for speed in others)
                table.add_row(label, pairs, precision, backend, *(f"{speed:.1f}" for speed in speeds), *ratios)
    return table, network


def scoring_speeds(
    sizes: Sizes,
    precision: str,
    seconds: float,
    directory: Path,
    backend: str = "tensorflow",
    losses: tuple[str, ...] = DEFAULT,
) -> tuple[float, float, float]:
    """Pairs per second: of the network of the first loss, of an evaluator of the losses, of the pipeline."""
    device = find_devices()[0]
    batches = sample_batches(sizes, DISTINCT_PAIRS, batching_for(device.memory_bytes))
    network = network_speed(batches, precision, device, seconds, backend, losses[0])
    evaluator = losses_speed(batches, precision, device, seconds, backend, losses)
    pairs = max(DISTINCT_PAIRS, round(seconds * evaluator))
    # A run takes ncnn where it can.
    with patch("transforms.losses.plan.find_spec", return_value=backend == "ncnn"):
        flags = (f"--losses={','.join(losses)}", f"--precision={precision}")
        return network, evaluator, pipeline_speed(sizes, pairs, directory, *flags)


def pipeline_speed(sizes: Sizes, pairs: int, directory: Path, *flags: str, candidates: int = 1) -> float:
    """Pairs per second of a whole run in this process, after a small run that loads the networks.

    Args:
        sizes: of the pairs.
        pairs: how many.
        directory: for the files.
        flags: of the run.
        candidates: how many pairs in turn have the same target; then one size.
    """
    seconds = 0.0
    for count in (DISTINCT_PAIRS, pairs):
        path = directory / "pairs.parquet"
        made = list(sample_pairs(sizes, count))
        targets = [made[row - row % candidates].target for row in range(count)]
        write_parquet(path, (replace(pair, target=target) for pair, target in zip(made, targets, strict=True)))
        output = f"--output={directory / 'run'}"
        start = time.perf_counter()
        assert run(["--runner=FnApiRunner", f"--input={path}", output, "--overwrite", "--quiet", *flags]) == 0
        seconds = time.perf_counter() - start
    return pairs / seconds


def _processes(directory: Path) -> dict[int, tuple[float, float]]:
    """Wall seconds and peak MiB by number of pairs, each measured in a process of its own."""
    used = {}
    for pairs in (64, 640):
        path = directory / f"{pairs}.parquet"
        write_parquet(path, sample_pairs(SQUARE, pairs))
        run = ["-m", "pipeline.run", "--runner=FnApiRunner", f"--input={path}", f"--output={directory / str(pairs)}"]
        command = [sys.executable, *run, "--precision=auto", "--quiet"]
        # A process inherits the peak memory of its parent, so its parent is a small process.
        measured = subprocess.run([sys.executable, "-c", _MEASURE, *command], check=True, stdout=subprocess.PIPE)
        seconds, kib = map(float, measured.stdout.split())
        used[pairs] = seconds, kib / 1024
    return used


_MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


if __name__ == "__main__":
    sys.exit(main())
