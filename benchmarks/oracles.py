"""Other people's implementations of the losses, each in an environment of its own below the cache directory."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.lpips_reference import REQUIREMENTS, ROOT, ensure_environment
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import cache_directory

# By name, uint8 [2, H, W, 3], the generated image first.
Pairs = Mapping[str, np.ndarray]
# By loss and pair; None: not defined.
Values = dict[str, dict[str, float | None]]

CRATE = "ssimulacra2 0.5.1 (crate)"


class Oracle(NamedTuple):
    """An implementation that `oracle_worker` calls.

    Attributes:
        worker: name in `oracle_worker.ORACLES`.
        environment: name of its environment; PyTorch is large, so that its users share one.
        requirements: of the environment.
        on_networks: whether it takes our weights files.
    """

    worker: str
    environment: str
    requirements: tuple[str, ...]
    on_networks: bool = False


_WITH_PYTORCH = (*REQUIREMENTS, "dists-pytorch==0.1", "piq==0.8.0", "torchmetrics==1.9.0")
ORACLES = {
    "lpips 0.1.4": Oracle("lpips", "lpips", _WITH_PYTORCH, on_networks=True),
    "dists-pytorch 0.1": Oracle("dists", "lpips", _WITH_PYTORCH, on_networks=True),
    "piq 0.8.0": Oracle("piq", "lpips", _WITH_PYTORCH),
    "torchmetrics 1.9.0": Oracle("torchmetrics", "lpips", _WITH_PYTORCH),
    "scikit-image 0.26.0": Oracle("skimage", "skimage", ("scikit-image==0.26.0",)),
    "flip-evaluator 1.7": Oracle("flip", "flip", ("flip-evaluator==1.7", "numpy")),
}


def score_with(oracle: Oracle, pairs: Pairs) -> Values:
    """Make the oracle's environment if need be, and score the pairs in it."""
    python = ensure_environment(cache_directory() / "envs" / oracle.environment, oracle.requirements)
    weights = [NETWORKS[name].weights().path for name in ("vgg16_lpips", "alexnet_lpips") if oracle.on_networks]
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **pairs)  # type: ignore[arg-type]
        file.flush()
        command = [str(python), "-W", "ignore", "-m", "benchmarks.oracle_worker", oracle.worker, file.name, *weights]
        # Threads that wait for each other are slow on a busy machine.
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=variables).stdout
    values: Values = json.loads(output)
    return values


def score_with_crate(pairs: Pairs) -> Values:
    """Build the program around the crate ssimulacra2 with cargo, and score the pairs; empty without cargo."""
    if not shutil.which("cargo"):
        print("no cargo here: without the crate ssimulacra2", file=sys.stderr)
        return {}
    manifest = Path(__file__).parent / "ssimulacra2_oracle" / "Cargo.toml"
    target = cache_directory() / "envs" / "ssimulacra2"
    command = ["cargo", "run", "--release", "--quiet", f"--manifest-path={manifest}", f"--target-dir={target}"]
    # The crate refuses smaller images.
    large = {name: images for name, images in pairs.items() if min(images.shape[1:3]) >= 8}
    data = b"".join(struct.pack("<II", *t.shape[:2]) + t.tobytes() + g.tobytes() for g, t in large.values())
    lines = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout.split()
    return {"ssimulacra2": dict(zip(large, map(float, lines), strict=True))}
