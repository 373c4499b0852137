"""Measures a GPU worker and its upper bounds: `python -m benchmarks.gpu`. It also runs on a CPU, to try it out.

Prints, each as a table: the speeds of the network, of the network with the losses, and of the pipeline by precision,
beside that of decoding, which is the bound if the GPU is fast and the CPU cores are few; the network by size of batch,
with the seconds that its first pass takes; batches of mixed sizes; descents; a cold start; and whether numbers repeat.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.bounds import decoding_speed, losses_speed, network_speed, sample_batches
from benchmarks.end_to_end import scoring_speeds
from pipeline.presets import PRESETS
from transforms.descent import slots
from transforms.descent.settings import Descent
from transforms.descent.slots import Start, optimize_pairs
from transforms.losses.devices import Device, find_devices
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.plan import PRECISIONS, Plan
from transforms.scoring.batch import PIXELS_PER_PAIR, Batching, batching_for

BATCHES = (1, 4, 16, 64)
FIXED_PRECISIONS = tuple(precision for precision in PRECISIONS if precision != "auto")
# Sizes of which few pairs are alike, as shares of the side: every one leaves a batch that is not full.
MIXED = ((1, 1), (3 / 4, 1), (1, 5 / 4), (1 / 2, 1 / 2), (5 / 4, 3 / 4))
# Shares of black laid over a target, so that descents towards it take different numbers of steps.
DIFFICULTIES = (0.0, 0.02, 0.1, 0.4)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="of the square pictures (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes of batch to try")
    parser.add_argument("--precisions", nargs="+", default=FIXED_PRECISIONS, choices=FIXED_PRECISIONS)
    options = parser.parse_args(argv)
    seconds, side = options.seconds, options.side
    console = Console(width=120)
    devices = find_devices()
    device = devices[0]
    console.print(f"{len(devices)} device(s), the first: {_describe(device)}")
    decoding = decoding_speed(((side, side),), seconds)
    console.print(f"decoding alone: {decoding:.1f} pairs/s of {side}x{side}")
    for title, table in (
        ("pairs per second, --preset=default", lambda: _precisions(options.precisions, side, seconds, decoding)),
        ("the network alone by batch", lambda: _batches(device, options.batches, side, seconds)),
        ("--preset=default, pictures of one size and of five", lambda: _mixed_sizes(device, side, seconds)),
        ("a descent of lpips_vgg", lambda: _descents(device, max(options.batches), side)),
        ("a process of its own, from nothing to its first batch", lambda: _cold_start(side)),
        ("the same numbers", lambda: _repeats(device, side)),
    ):
        console.print(title, table(), sep="\n")
    return 0


def _describe(device: Device) -> str:
    batching = batching_for(device.memory_bytes)
    chosen = " and ".join(device.precision("auto", gradients) for gradients in (False, True))
    kind = f"{device.kind}, compute capability {device.compute_capability}" if device.on_gpu else "a CPU"
    return (
        f"{kind}, {device.memory_bytes / 2**30:.1f} GiB; --precision=auto: {chosen} with gradients; batches of "
        f"{batching.pixels // PIXELS_PER_PAIR} pairs of 256x256"
    )


def _precisions(precisions: Sequence[str], side: int, seconds: float, decoding: float) -> Table:
    """How near the pipeline comes to its bounds; idle: the share of its time in which the device has nothing to do."""
    table = Table("precision", "network", "+ losses", "pipeline", "pipeline / slower of network and decoding", "idle")
    with tempfile.TemporaryDirectory() as directory:
        for precision in precisions:
            speeds = scoring_speeds(((side, side),), precision, seconds, Path(directory))
            network, losses, pipeline = speeds
            ratios = f"{pipeline / min(network, decoding):.2f}", f"{max(0.0, 1 - pipeline / losses):.0%}"
            table.add_row(precision, *(f"{speed:.1f}" for speed in speeds), *ratios)
    return table


def _batches(device: Device, sizes: Sequence[int], side: int, seconds: float) -> Table:
    precision = device.precision("auto", gradients=False)
    table = Table("pairs", "precision", "pairs/s", "first pass, s", "peak memory, MiB", "bytes per pixel of a pair")
    for pairs in sizes:
        pixels = pairs * side**2
        batches = sample_batches(((side, side),), pairs, Batching(pairs, pixels))
        if device.on_gpu:
            tf.config.experimental.reset_memory_stats(device.name)
        first = _seconds(partial(network_speed, batches, precision, device, seconds=0))
        speed = network_speed(batches, precision, device, seconds)
        memory = ("", "")
        if device.on_gpu:
            peak = tf.config.experimental.get_memory_info(device.name)["peak"]
            memory = (f"{peak / 2**20:.0f}", f"{peak / pixels:.0f}")
        table.add_row(str(pairs), precision, f"{speed:.1f}", f"{first:.1f}", *memory)
    return table


def _mixed_sizes(device: Device, side: int, seconds: float) -> Table:
    precision = device.precision("auto", gradients=False)
    table = Table("pictures", "pairs/s", "megapixels/s", "shapes of batch")
    mixed = [(round(height * side), round(width * side)) for height, width in MIXED]
    for name, sizes in (("one size", [(side, side)]), ("five sizes", mixed)):
        batches = sample_batches(sizes, 40, batching_for(device.memory_bytes))
        shapes = {(device.batch(len(generated)), *generated.shape[1:3]) for generated, _ in batches}
        speed = losses_speed(batches, precision, device, seconds)
        pixels = sum(generated[..., 0].size for generated, _ in batches) / sum(len(images) for images, _ in batches)
        table.add_row(name, f"{speed:.1f}", f"{speed * pixels / 1e6:.2f}", str(len(shapes)))
    return table


def _descents(device: Device, most: int, side: int) -> Table:
    """Measure descents of equal pairs, which stop together, and of mixed ones, whose batch shrinks as they stop."""
    count = min(most, batching_for(device.memory_bytes).pixels // side**2)
    ((_, target),) = sample_batches(((side, side),), count, Batching(count, count * side**2))
    columns = ("precision", "pairs", "image-steps", "image-steps/s", "first time, s", "again, s", "shapes of batch")
    table = Table(*columns)
    for precision in dict.fromkeys(("float32", device.precision("auto", gradients=True))):
        plan = Plan((), parse_objective("lpips_vgg"), precision=precision).with_weights()
        objective = ObjectiveFunction(plan, Networks(plan, device, descends=True))
        for kind, shares in (("alike", (0.1,)), ("mixed", DIFFICULTIES)):
            generated = np.stack([_darkened(image, shares[row % len(shares)]) for row, image in enumerate(target)])
            first, again = (_descend(generated, target, objective) for _ in range(2))
            steps, seconds, shapes = again
            speed = f"{steps / seconds:.1f}"
            table.add_row(precision, f"{count} {kind}", str(steps), speed, f"{first[1]:.1f}", f"{seconds:.1f}", shapes)
    return table


def _darkened(image: np.ndarray, share: float) -> np.ndarray:
    return np.rint(image * (1 - share)).astype(np.uint8)


def _descend(generated: np.ndarray, target: np.ndarray, objective: ObjectiveFunction) -> tuple[int, float, str]:
    """Image-steps, seconds, and in how many sizes of batch: XLA compiles for each."""
    descent = replace(Descent(method="adam"), max_steps=20)
    starts = (Start(number, *pair) for number, pair in enumerate(zip(generated, target, strict=True)))
    sizes, advance = set(), slots._Engine.advance

    def noted(engine: slots._Engine, rows: slots._Rows, running: Sequence[slots._Running]) -> slots._Rows:
        sizes.add(rows.progress.stop.shape[0])
        return advance(engine, rows, running)

    start = time.perf_counter()
    with patch.object(slots._Engine, "advance", noted):
        results = list(optimize_pairs(starts, objective, descent, len(generated)))
    return sum(result.steps for result in results), time.perf_counter() - start, str(len(sizes))


def _cold_start(side: int) -> Table:
    table = Table("imported, s", "networks loaded, s", "first batch, s", "second batch, s")
    program = [sys.executable, "-c", _FIRST_BATCH.format(side=side)]
    table.add_row(*subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True).stdout.split())
    return table


_FIRST_BATCH = """
import time
start = time.perf_counter()
import numpy as np
from pipeline.presets import PRESETS
from transforms.losses.plan import Plan
from transforms.scoring.model_cache import load_once
from transforms.scoring.score import load_evaluator
import tensorflow
print(f"{{time.perf_counter() - start:.1f}}")
plan = Plan(PRESETS["default"].losses, precision="auto").with_weights()
evaluator = load_once(load_evaluator, plan)
print(f"{{time.perf_counter() - start:.1f}}")
images = np.random.default_rng(0).integers(0, 256, (2, 16, {side}, {side}, 3), np.uint8)
for _ in range(2):
    evaluator(*images)
    print(f"{{time.perf_counter() - start:.1f}}")
"""


def _repeats(device: Device, side: int) -> Table:
    """Two evaluators on the same pairs, and an identical pair among others."""
    table = Table("precision", "two evaluators agree in", "identical pairs score 0 in")
    ((generated, target),) = sample_batches(((side, side),), 8, Batching(8, 8 * side**2))
    generated[3] = target[3]
    names = [name for name in PRESETS["default"].losses if name not in ("psnr", "ssim")]
    for precision in dict.fromkeys(("float32", device.precision("auto", gradients=False))):
        plan = Plan(tuple(names), precision=precision).with_weights()
        one, other = (Evaluator(plan, Networks(plan, device))(generated, target) for _ in range(2))
        same, zero = (
            [name for name in names if holds(name)] for holds in (partial(_equal, one, other), partial(_zero, one))
        )
        table.add_row(precision, *(f"{len(found)} of {len(names)} losses" for found in (same, zero)))
    return table


def _equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray], name: str) -> bool:
    return np.array_equal(one[name], other[name])


def _zero(columns: dict[str, np.ndarray], name: str) -> bool:
    return bool(columns[name][3] == 0)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
