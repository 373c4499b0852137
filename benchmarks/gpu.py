"""Measures a GPU worker and its upper bounds: `python -m benchmarks.gpu`. It also runs on a CPU, to try it out.

Prints the speeds of the network, of the network with the losses, and of the pipeline by precision, and that of
decoding, which is the bound if the GPU is fast and the CPU cores are few. Then the network's speed and GPU memory by
batch size, and the speed of a descent, which XLA compiles on a GPU.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.bounds import SQUARE, decoding_speed, network_speed, sample_batches
from benchmarks.end_to_end import scoring_speeds
from transforms.descent.settings import Descent
from transforms.descent.slots import Start, optimize_pairs
from transforms.losses.devices import Device, find_devices
from transforms.losses.networks.loaded import Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.plan import PRECISIONS, Plan
from transforms.scoring.batch import PIXELS_PER_PAIR, Batching, batching_for

BATCHES = (1, 4, 16, 64)
FIXED_PRECISIONS = tuple(precision for precision in PRECISIONS if precision != "auto")


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default: %(default)s)")
    seconds = parser.parse_args().seconds
    console = Console(width=110)
    devices = find_devices()
    device = devices[0]
    console.print(f"{len(devices)} device(s), the first: {_describe(device)}")
    with tempfile.TemporaryDirectory() as directory:
        decoding = decoding_speed(SQUARE, seconds)
        console.print(f"decoding alone: {decoding:.1f} pairs/s of 256x256")
        scoring = partial(scoring_speeds, SQUARE, seconds=seconds, directory=Path(directory))
        table = Table("precision", "network", "+ losses", "pipeline", "pipeline / slower of network and decoding")
        for precision in FIXED_PRECISIONS:
            network, losses, pipeline = scoring(precision=precision)
            row = (f"{network:.1f}", f"{losses:.1f}", f"{pipeline:.1f}", f"{pipeline / min(network, decoding):.2f}")
            table.add_row(precision, *row)
    console.print("pairs per second of 256x256, --preset=default", table, sep="\n")
    console.print("the network alone by batch", _batches(device, seconds), sep="\n")
    console.print("steps of a descent of lpips_vgg, 256x256", _descent(device), sep="\n")
    return 0


def _describe(device: Device) -> str:
    batching = batching_for(device.memory_bytes)
    chosen = " and ".join(device.precision("auto", gradients) for gradients in (False, True))
    kind = f"{device.name}, compute capability {device.compute_capability}" if device.on_gpu else "a CPU"
    return (
        f"{kind}, {device.memory_bytes / 2**30:.1f} GiB; --precision=auto: {chosen} with gradients; batches of "
        f"{batching.pixels // PIXELS_PER_PAIR} pairs of 256x256"
    )


def _batches(device: Device, seconds: float) -> Table:
    precision = device.precision("auto", gradients=False)
    table = Table("pairs", "precision", "pairs/s", "peak memory, MiB", "bytes per pixel of a pair")
    for pairs in BATCHES:
        batches = sample_batches(SQUARE, pairs, Batching(pairs, pairs * PIXELS_PER_PAIR))
        if device.on_gpu:
            tf.config.experimental.reset_memory_stats(device.name)
        speed = network_speed(batches, precision, device, seconds)
        memory = ("", "")
        if device.on_gpu:
            peak = tf.config.experimental.get_memory_info(device.name)["peak"]
            memory = (f"{peak / 2**20:.0f}", f"{peak / (pairs * PIXELS_PER_PAIR):.0f}")
        table.add_row(str(pairs), precision, f"{speed:.1f}", *memory)
    return table


def _descent(device: Device) -> Table:
    weights = NETWORKS["vgg16_lpips"].weights()
    slots = batching_for(device.memory_bytes).pixels // PIXELS_PER_PAIR
    ((generated, target),) = sample_batches(SQUARE, slots, Batching(slots, slots * PIXELS_PER_PAIR))
    table = Table("precision", "slots", "image-steps/s", "seconds until the first step")
    for precision in dict.fromkeys(("float32", device.precision("auto", gradients=True))):
        plan = Plan((), parse_objective("lpips_vgg"), precision=precision, weights={"vgg16_lpips": weights})
        objective = ObjectiveFunction(plan, Networks(plan, device, descends=True))
        once = _descent_seconds(generated, target, objective, steps=1)
        few, many = (_descent_seconds(generated, target, objective, steps) for steps in (5, 15))
        table.add_row(precision, str(slots), f"{slots * 10 / (many - few):.1f}", f"{once:.1f}")
    return table


def _descent_seconds(generated: np.ndarray, target: np.ndarray, objective: ObjectiveFunction, steps: int) -> float:
    descent = replace(Descent(method="adam", patience=10**6, rtol=0.0), max_steps=steps)
    starts = (Start(number, *pair) for number, pair in enumerate(zip(generated, target, strict=True)))
    start = time.perf_counter()
    assert len(list(optimize_pairs(starts, objective, descent, len(generated)))) == len(generated)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
