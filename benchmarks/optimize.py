"""Compares optimizing with the loop that people start from: `python -m benchmarks.optimize`.

The loop is the example of the package `lpips` (benchmarks/lpips_loop_worker.py), in an environment with PyTorch that is
made at first use. Both have the same objective and pictures on the same machine, so the ratios are what counts.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.lpips_reference import run_with_pytorch
from benchmarks.pairs_of_size import pairs_of_size
from transforms.descent.settings import DEFAULT_OBJECTIVE, Descent
from transforms.descent.slots import Optimized, Start, optimize_pairs
from transforms.images.decode import DecodePolicy
from transforms.images.pairs import decode_pair
from transforms.losses.devices import find_devices
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.plan import Plan

SLOTS = 8
# Never converges and never stops early, to measure the speed of steps.
ENDLESS = Descent(patience=10**6, rtol=0.0)

# Degradations that leave enough of the picture to restore it.
RESTORABLE = ("jpeg-q10", "jpeg-q30", "webp-q10", "blur", "noise", "resampled-x4", "colour-shift", "occlusion")

Pairs = list[tuple[np.ndarray, np.ndarray]]


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimize", description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="steps of each speed measurement (default: %(default)s)")
    steps = parser.parse_args().steps
    console = Console(width=110)
    console.print("image-steps per second, lpips_vgg, 256x256", _speed(steps), sep="\n")
    console.print("evaluations until lpips_vgg is a tenth of its start, 64x64", _evaluations(), sep="\n")
    console.print("the defaults on degraded photographs, 96x96, means before > after", _improvement(), sep="\n")
    console.print(_refill())
    console.print(_memory())
    return 0


def _speed(steps: int) -> Table:
    pairs = _pairs(256, SLOTS)
    loop = _loop(pairs[:2], steps, ratio=0.0)
    loop_speed = sum(one["evaluations"] for one in loop) / sum(one["seconds"] for one in loop)
    table = Table("implementation", "image-steps/s", "of the loop", "network alone", "of the network")
    table.add_row("PyTorch loop, float32", f"{loop_speed:.2f}", "1.00", "", "")
    fastest = find_devices()[0].precision("auto", gradients=True)
    for precision, backend in dict.fromkeys((("float32", "tensorflow"), ("float32", "ncnn"), (fastest, "tensorflow"))):
        objective = _objective("lpips_vgg", precision, backend)
        descent = replace(ENDLESS, method="adam", max_steps=steps)
        results, seconds = _timed(pairs, objective, descent)
        speed = sum(result.steps + 1 for result in results) / seconds
        bound = _network_speed(pairs, precision, backend)
        row = (f"{speed:.2f}", f"{speed / loop_speed:.2f}", f"{bound:.2f}", f"{speed / bound:.2f}")
        table.add_row(f"ours, {precision}, {backend}", *row)
    return table


def _evaluations() -> Table:
    """Both stop at a tenth of the first loss; ours uses its default method."""
    pairs = _pairs(64, 4)
    theirs = _loop(pairs, steps=600, ratio=0.1)
    descent = Descent(target_ratio=0.1, max_steps=1000, patience=100)
    results = {result.key: result for result in _optimize(pairs, _objective("lpips_vgg", "float32"), descent)}
    table = Table("pair", "PyTorch loop", "ours", "ratio")
    for number, other in enumerate(theirs):
        mine = results[number].steps + 1
        reached = "" if other["loss"] <= 0.1 else f" (at {other['loss']:.2f})"
        table.add_row(str(number), f"{other['evaluations']}{reached}", str(mine), f"{mine / other['evaluations']:.2f}")
    ours, loop = sum(r.steps + 1 for r in results.values()), sum(one["evaluations"] for one in theirs)
    table.add_row("all", str(loop), str(ours), f"{ours / loop:.2f}")
    return table


def _improvement() -> Table:
    """The default objective and method, also judged by losses that were not optimized."""
    losses = ("lpips_vgg", "ssim", "gmsd", "mse")
    encoded = [pair for pair in pairs_of_size(96, 96, 39) if pair.degradation in RESTORABLE]
    decoded = [decode_pair(pair.generated, pair.target, DecodePolicy()) for pair in encoded]
    results = _optimize([(p.generated, p.target) for p in decoded], _objective(DEFAULT_OBJECTIVE, "float32"), Descent())
    saved = {result.key: result for result in results}
    weights = NETWORKS["vgg16_lpips"].weights()
    evaluator = Evaluator(Plan(losses, weights={"vgg16_lpips": weights}))
    table = Table("degradation", "steps", "objective", *losses[:-1], "psnr of the mean mse")
    for degradation in RESTORABLE:
        rows = [number for number, pair in enumerate(encoded) if pair.degradation == degradation]
        targets = np.stack([decoded[row].target for row in rows])
        before = evaluator(np.stack([decoded[row].generated for row in rows]), targets)
        after = evaluator(np.stack([saved[row].image for row in rows]), targets)
        start, end = (
            np.mean([getattr(saved[row], name) for row in rows]) for name in ("objective_initial", "objective_of_saved")
        )
        steps = f"{np.mean([saved[row].steps for row in rows]):.0f}"
        changes = [f"{before[loss].mean():.3f} > {after[loss].mean():.3f}" for loss in losses[:-1]]
        # A pair may end up identical to its target, with an infinite PSNR, so the mean is over mse.
        psnr = (-10 * np.log10(values["mse"].mean()) for values in (before, after))
        table.add_row(degradation, steps, f"{start:.3f} > {end:.3f}", *changes, "{:.1f} > {:.1f}".format(*psnr))
    return table


def _refill() -> str:
    """64 pairs of mixed difficulty: refilled slots against batches that run until their last pair is done."""
    pairs = _pairs(32, 64)
    objective = _objective("lpips_vgg", "float32")
    descent = Descent(target_ratio=0.1, max_steps=200)
    results, refilled = _timed(pairs, objective, descent)
    steps = {result.key: result.steps for result in results}
    together = 0.0
    for first in range(0, len(pairs), SLOTS):
        longest = max(steps[number] for number in range(first, first + SLOTS))
        endless = replace(ENDLESS, max_steps=max(longest, 1))
        together += _timed(pairs[first : first + SLOTS], objective, endless)[1]
    counts = f"64 pairs of 32x32, {min(steps.values())} to {max(steps.values())} steps"
    times = f"{refilled:.1f} s with refill, {together:.1f} s in batches that end together"
    return f"{counts}: {times}, ratio {refilled / together:.2f}"


def _memory() -> str:
    """Peak memory of this process after 4 batches of pairs, and after 40 more."""
    objective = _objective("lpips_vgg", "float32")
    pairs = _pairs(64, SLOTS)
    peaks = []
    for rounds in (4, 40):
        list(_optimize(pairs * rounds, objective, replace(ENDLESS, max_steps=2)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return f"peak memory: {peaks[0]:.0f} MiB after {4 * SLOTS} pairs, {peaks[1]:.0f} MiB after {44 * SLOTS}"


def _pairs(side: int, count: int) -> Pairs:
    """Degraded photographs, without the identical and the upside-down ones."""
    encoded = (p for p in pairs_of_size(side, side, 2 * count) if p.degradation not in ("identical", "upside-down"))
    decoded = (decode_pair(pair.generated, pair.target, DecodePolicy()) for pair in islice(encoded, count))
    return [(pair.generated, pair.target) for pair in decoded]


def _loop(pairs: Pairs, steps: int, ratio: float) -> list[dict[str, float]]:
    generated, target = (np.stack(images) for images in zip(*pairs, strict=True))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pairs.npz"
        np.savez(path, generated=generated, target=target)
        found: list[dict[str, float]] = json.loads(
            run_with_pytorch("benchmarks.lpips_loop_worker", str(path), str(steps), str(ratio))
        )
    return found


def _optimize(pairs: Pairs, objective: ObjectiveFunction, descent: Descent) -> Iterable[Optimized]:
    starts = (Start(number, generated, target) for number, (generated, target) in enumerate(pairs))
    return optimize_pairs(starts, objective, descent, SLOTS)


def _timed(pairs: Pairs, objective: ObjectiveFunction, descent: Descent) -> tuple[list[Optimized], float]:
    """Results and seconds; the time to trace the graphs is not included."""
    list(_optimize(_pairs(16, 1), objective, descent))
    start = time.perf_counter()
    results = list(_optimize(pairs, objective, descent))
    return results, time.perf_counter() - start


def _objective(text: str, precision: str, backend: str = "") -> ObjectiveFunction:
    """The objective on a backend, by default the one that a run takes."""
    plan = Plan((), parse_objective(text), precision=precision).with_weights().with_backend(descends=True)
    return ObjectiveFunction(replace(plan, backend=backend or plan.backend))


def _network_speed(pairs: Pairs, precision: str, backend: str) -> float:
    """Image-steps per second of the network's forward pass and its gradient to the image, and nothing else."""
    networks = Networks(Plan(("lpips_vgg",), precision=precision, backend=backend).with_weights(), descends=True)
    images = tf.constant(np.stack([generated for generated, _ in pairs]) / 255.0, tf.float32)

    @tf.function(autograph=False)
    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            features = networks.features(images, ("lpips_vgg",), gradients=True)
        return tape.gradient(features, images, output_gradients=features)

    work = partial(step, images)
    work()
    start = time.perf_counter()
    for _ in range(3):
        work()
    return 3 * len(images) / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
