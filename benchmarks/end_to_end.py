"""How close the pipeline comes to its bounds: `python -m benchmarks.end_to_end`.

The bound of scoring is the network alone: VGG16 up to relu5_3 on batches that are in memory already. The bound of
`--preset=edges`, which needs no network, is decoding alone. Everything is measured in one run on the same pairs, so
that the ratios hold although machines differ.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from pipeline.flags import PRESETS
from pipeline.run import main as run
from pipeline.samples import SamplePair, pairs_of_size, repeat_pairs, write_parquet
from pipeline.weights import ensure_weights
from transforms.batch import Batching, batch_by_shape
from transforms.decode import DecodedPair, DecodePolicy, decode_pair
from transforms.losses.devices import find_devices
from transforms.losses.evaluate import Evaluator
from transforms.losses.layers import LPIPS_LAYERS
from transforms.losses.plan import Plan
from transforms.losses.vgg import LPIPS_PREPROCESSING, Vgg16
from transforms.losses.weights import LPIPS_SHA256, WeightsFile, load_lpips

SQUARE = ((256, 256),)
MIXED = ((256, 256), (192, 320), (320, 240), (128, 128), (300, 200))
DISTINCT_PAIRS = 40

Batches = Sequence[tuple[np.ndarray, np.ndarray]]


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="of each measurement, about (default: %(default)s)")
    seconds = parser.parse_args().seconds
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # First, while this process has no threads and no memory of its own to speak of.
        processes = _processes(directory)
        network_speed = 0.0
        scoring = Table("pairs", "precision", "network", "+ losses", "pipeline", "losses/network", "pipeline/network")
        for precision in dict.fromkeys(("float32", find_devices()[0].precision("auto", gradients=False))):
            for name, sizes in (("5 sizes", MIXED), ("256x256", SQUARE)):
                speeds = _scoring(sizes, precision, seconds, directory)
                scoring.add_row(name, precision, *_formatted(speeds))
                network_speed = speeds[0]
        console.print("Pairs per second, --preset=default, and ratios to the network alone", scoring, sep="\n")
        edges = Table("pairs", "decoding", "pipeline", "pipeline/decoding")
        decoding, pipeline = _edges(seconds, directory)
        edges.add_row("256x256", f"{decoding:.1f}", f"{pipeline:.1f}", f"{pipeline / decoding:.2f}")
        console.print("Pairs per second, --preset=edges", edges, sep="\n")
        (few, (seconds, few_mib)), (many, (_, many_mib)) = processes.items()
        beyond = seconds - few / network_speed
        console.print(f"cold: {few} pairs in {seconds:.1f} s, {beyond:.1f} s of it beyond the network's own")
        ratio = f"{many_mib / few_mib:.2f}"
        console.print(f"peak memory: {few_mib:.0f} MiB for {few} pairs, {many_mib:.0f} MiB for {many}, ratio {ratio}")
    return 0


def _scoring(
    sizes: Sequence[tuple[int, int]], precision: str, seconds: float, directory: Path
) -> tuple[float, float, float]:
    """Pairs per second of the network alone, with the losses, and of the pipeline."""
    weights = WeightsFile(str(ensure_weights()), LPIPS_SHA256)
    vgg = Vgg16(load_lpips(weights.read()), LPIPS_PREPROCESSING, tf.as_dtype(precision))
    evaluator = Evaluator(Plan(PRESETS["default"].losses, precision=precision, lpips_weights=weights))
    distinct = _batches(sizes, DISTINCT_PAIRS)
    work = [partial(_for_each, function, distinct) for function in (_network(vgg), evaluator)]
    once = _seconds(work[0])
    rounds = max(1, round(seconds / once))
    network, losses = (rounds * DISTINCT_PAIRS / _seconds(one, rounds) for one in work)
    pipeline = _pipeline_speed(sizes, rounds * DISTINCT_PAIRS, directory, f"--precision={precision}")
    return network, losses, pipeline


def _edges(seconds: float, directory: Path) -> tuple[float, float]:
    """Pairs per second of decoding alone and of the pipeline with --preset=edges."""
    encoded = [(pair.generated, pair.target) for pair in _pairs(SQUARE, DISTINCT_PAIRS)]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        once = _seconds(lambda: list(executor.map(_decode, encoded)))
        rounds = max(1, round(seconds / once))
        decoding = rounds * DISTINCT_PAIRS / _seconds(lambda: list(executor.map(_decode, encoded)), rounds)
    return decoding, _pipeline_speed(SQUARE, rounds * DISTINCT_PAIRS, directory, "--preset=edges")


def _processes(directory: Path) -> dict[int, tuple[float, float]]:
    """Wall seconds and peak MiB by number of pairs, each of a process of its own."""
    used = {}
    for pairs in (64, 640):
        path = directory / f"{pairs}.parquet"
        write_parquet(path, _pairs(SQUARE, pairs))
        run = ["-m", "pipeline.run", "--runner=FnApiRunner", f"--input={path}", f"--output={directory / str(pairs)}"]
        command = [sys.executable, *run, "--precision=auto", "--quiet"]
        # A process counts the memory of the one that started it as its own, so a small one starts it.
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


def _pairs(sizes: Sequence[tuple[int, int]], count: int) -> Iterator[SamplePair]:
    """Pairs of the sizes in turn; a few distinct ones, over and over, for making them takes longer than scoring."""
    each = DISTINCT_PAIRS // len(sizes)
    made = [list(pairs_of_size(height, width, each)) for height, width in sizes]
    distinct = list(chain.from_iterable(zip(*made, strict=True)))
    repeated = repeat_pairs(distinct, -(-count // len(distinct)))
    return (pair for pair, _ in zip(repeated, range(count), strict=False))


def _batches(sizes: Sequence[tuple[int, int]], count: int) -> Batches:
    decoded = (_decode((pair.generated, pair.target)) for pair in _pairs(sizes, count))
    groups = batch_by_shape(decoded, Batching())
    return [(np.stack([p.generated for p in group]), np.stack([p.target for p in group])) for group in groups]


def _decode(encoded: tuple[bytes, bytes]) -> DecodedPair:
    return decode_pair(*encoded, DecodePolicy())


def _network(vgg: Vgg16) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)] * 2

    @tf.function(input_signature=signature)
    def network(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        images = tf.cast(tf.concat([generated, target], 0), tf.float32) / 255
        return vgg.features(images, LPIPS_LAYERS)["relu5_3"]

    return network


def _for_each(function: Callable[[np.ndarray, np.ndarray], object], batches: Batches) -> None:
    for generated, target in batches:
        function(generated, target)


def _seconds(work: Callable[[], object], rounds: int = 1) -> float:
    """Seconds of the rounds, after one that is not counted."""
    work()
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    return time.perf_counter() - start


def _pipeline_speed(sizes: Sequence[tuple[int, int]], pairs: int, directory: Path, *flags: str) -> float:
    """Pairs per second of a whole run in this process, whose networks an earlier, small run has loaded."""
    seconds = 0.0
    for count in (DISTINCT_PAIRS, pairs):
        path = directory / "pairs.parquet"
        write_parquet(path, _pairs(sizes, count))
        output = f"--output={directory / 'run'}"
        start = time.perf_counter()
        assert run(["--runner=FnApiRunner", f"--input={path}", output, "--overwrite", "--quiet", *flags]) == 0
        seconds = time.perf_counter() - start
    return pairs / seconds


def _formatted(row: tuple[float, float, float]) -> list[str]:
    network, losses, pipeline = row
    return [
        f"{network:.1f}",
        f"{losses:.1f}",
        f"{pipeline:.1f}",
        f"{losses / network:.2f}",
        f"{pipeline / network:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
