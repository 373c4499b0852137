"""Compares our speed with other people's packages on the same pictures: `python -m benchmarks.peers`.

lpips, dists-pytorch, piq and torchmetrics run as they ship and at their best settings (batches of 16, channels_last,
bfloat16 by autocast), in the environment with PyTorch that `benchmarks.oracles` makes. Measured are losses on images in
memory, and the way from two folders to a number for each pair, start-up included.

pyiqa joins where it installs, which takes 7 GB in an environment of its own. It downloads its weights from outside of
the package indexes, so that its LPIPS runs on ours.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bounds import SQUARE, Batches, batches_speed, sample_batches
from benchmarks.lpips_reference import REQUIREMENTS, ROOT, ensure_environment
from benchmarks.oracles import ORACLES
from benchmarks.pairs_of_size import pairs_of_size
from pipeline.presets import PRESETS
from transforms.losses.devices import find_devices
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import cache_directory
from transforms.losses.plan import Plan
from transforms.scoring.batch import Batching

PAIRS = 32
PYIQA = ("pyiqa==0.1.16", *REQUIREMENTS)
# The packages have these losses of --preset=default, and none on edges.
OF_DEFAULT = ("lpips_vgg", "ssim", "gmsd", "psnr")
# By loss and by package with its settings, pairs per second.
Speeds = Mapping[str, Mapping[str, float]]


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="length of each measurement (default: %(default)s)")
    parser.add_argument("--files", type=int, default=1000, help="pairs in the two folders (default: %(default)s)")
    options = parser.parse_args()
    oracle = ORACLES["lpips 0.1.4"]
    python = ensure_environment(cache_directory() / "envs" / oracle.environment, oracle.requirements)
    batches = sample_batches(SQUARE, PAIRS, Batching())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        generated, target = (np.concatenate(images) for images in zip(*batches, strict=True))
        np.savez(directory / "pairs.npz", generated=generated, target=target)
        weights = [NETWORKS[network].weights().path for network in ("vgg16_lpips", "alexnet_lpips")]
        worker = _worker(python)
        measured = [*weights, str(directory / "pairs.npz"), str(options.seconds)]
        peers = json.loads(_run([*worker, "speeds", *measured]))
        if pyiqa := _pyiqa():
            for loss, speeds in json.loads(_run([*_worker(pyiqa), "speeds_of_pyiqa", *measured])).items():
                peers[loss] |= speeds
        ours = {loss: _our_speeds((loss,), batches, options.seconds) for loss in peers}
        whole = _our_speeds(PRESETS["default"].losses, batches, options.seconds)
        folders = _folders(directory, options.files)
        theirs = _seconds([*worker, "two_folders", weights[1], *folders])
        score = [
            "-m",
            "pairloss",
            "score",
            *folders,
            "--losses=lpips_alex",
            f"--output={directory / 'run'}",
            "--quiet",
        ]
        from_files = theirs, _seconds([sys.executable, *score])
    console = Console(width=120)
    console.print("pairs per second of 256x256, images in memory", _table(peers, ours), sep="\n")
    console.print(_default_line(peers, whole))
    console.print(
        f"lpips_alex of {options.files} pairs from two folders: lpips' script {from_files[0]:.1f} s, pairloss score "
        f"{from_files[1]:.1f} s, {from_files[0] / from_files[1]:.2f} times as fast"
    )
    return 0


def _pyiqa() -> Path | None:
    """The Python of pyiqa's environment; None, and a message, where it does not install."""
    try:
        return ensure_environment(cache_directory() / "envs" / "pyiqa", PYIQA)
    except subprocess.CalledProcessError:
        print("pyiqa does not install here, for the reason that pip gives above: without it", file=sys.stderr)
        return None


def _worker(python: Path) -> list[str]:
    return [str(python), "-W", "ignore", "-m", "benchmarks.peers_worker"]


def _our_speeds(losses: tuple[str, ...], batches: Batches, seconds: float) -> dict[str, float]:
    """Our pairs per second by precision."""
    found = {}
    fastest = find_devices()[0].precision("auto", gradients=False)
    for precision in dict.fromkeys(("float32", fastest)):
        plan = Plan(losses, precision=precision).with_weights().with_backend()
        found[precision] = batches_speed(batches, Evaluator(plan), seconds)
    return found


def _table(peers: Speeds, ours: Speeds) -> Table:
    table = Table("loss", "package", "pairs/s", "ours, float32", "ratio", "ours, fastest", "ratio")
    for loss, packages in peers.items():
        float32, fastest = ours[loss]["float32"], max(ours[loss].values())
        for package, speed in packages.items():
            ratios = (f"{float32:.1f}", f"{float32 / speed:.2f}", f"{fastest:.1f}", f"{fastest / speed:.2f}")
            table.add_row(loss, package, f"{speed:.1f}", *ratios)
    return table


def _default_line(peers: Speeds, whole: Mapping[str, float]) -> str:
    """The default preset against the sum of what the packages take for the losses that they have."""
    lines = []
    for name, bfloat16 in (("float32", False), ("bfloat16", True)):
        fastest = (max(v for k, v in peers[loss].items() if bfloat16 or "bfloat16" not in k) for loss in OF_DEFAULT)
        theirs = sum(1 / speed for speed in fastest)
        speed = max(whole.values()) if bfloat16 else whole["float32"]
        lines.append(
            f"{name}: {1 / speed / theirs:.2f} of the packages' time for {', '.join(OF_DEFAULT)} one after another"
        )
    return f"--preset=default, {'; '.join(lines)}"


def _folders(directory: Path, count: int) -> list[str]:
    folders = [directory / side for side in ("generated", "target")]
    for folder in folders:
        folder.mkdir()
    for number, pair in enumerate(pairs_of_size(256, 256, count)):
        for folder, content in zip(folders, (pair.generated, pair.target), strict=True):
            (folder / f"{number:05d}.png").write_bytes(content)
    return list(map(str, folders))


def _run(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    _run(command)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
