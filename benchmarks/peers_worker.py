"""Measures other people's implementations; prints JSON. Runs in the environment with PyTorch of `oracles`."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import piq  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]
from PIL import Image
from torchmetrics.functional import image as torchmetrics  # type: ignore[import-not-found]

from benchmarks.lpips_reference_worker import original_lpips
from benchmarks.oracle_worker import original_dists

# It takes images [B, 3, H, W] in [0, 1].
Loss = Callable[[torch.Tensor, torch.Tensor], Any]


def speeds(vgg: str, alex: str, pairs: str, seconds: float) -> dict[str, dict[str, float]]:
    """Pairs per second by loss and by package with its settings, on images in memory.

    Args:
        vgg: path of our weights file of VGG16.
        alex: of AlexNet.
        pairs: path of an .npz file with `generated` and `target`, uint8 [N, H, W, 3].
        seconds: length of each measurement.
    """
    images = np.load(pairs)
    generated, target = (torch.from_numpy(images[side]).permute(0, 3, 1, 2) / 255 for side in ("generated", "target"))
    networks: dict[str, torch.nn.Module] = {
        "lpips_vgg": original_lpips(vgg, "vgg"),
        "lpips_alex": original_lpips(alex, "alex"),
        "dists": original_dists(vgg),
    }
    found: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for loss, network in networks.items():
            package = "dists-pytorch" if loss == "dists" else "lpips"
            scaled = network if loss == "dists" else _of_unit_range(network)
            found[loss] = {f"{package}, one by one": _speed(_one_by_one(scaled), generated, target, seconds)}
            network.to(memory_format=torch.channels_last)
            found[loss][f"{package}, channels_last"] = _speed(_channels_last(scaled), generated, target, seconds)
            with torch.autocast("cpu", torch.bfloat16):
                bfloat16 = _speed(_channels_last(scaled), generated, target, seconds)
            found[loss][f"{package}, bfloat16"] = bfloat16
        ssim = torchmetrics.structural_similarity_index_measure
        for loss, packages in {
            "ssim": {
                "piq": lambda x, y: piq.ssim(x, y, downsample=False, reduction="none"),
                "torchmetrics": lambda x, y: ssim(x, y, data_range=1.0, reduction="none"),
            },
            "gmsd": {"piq": lambda x, y: piq.gmsd(x, y, reduction="none")},
            "psnr": {"piq": lambda x, y: piq.psnr(x, y, reduction="none")},
        }.items():
            found[loss] = {name: _speed(function, generated, target, seconds) for name, function in packages.items()}
    return found


def two_folders(alex: str, generated: str, target: str) -> float:
    """Mean LPIPS of the pairs of two folders, as lpips' own script lpips_2dirs.py goes through them."""
    network = _of_unit_range(original_lpips(alex, "alex"))
    values = []
    with torch.inference_mode():
        for path in sorted(Path(generated).iterdir()):
            pair = (_read(path), _read(Path(target) / path.name))
            values.append(network(*pair).item())
    return float(np.mean(values))


def _read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)[None] / 255


def _of_unit_range(network: torch.nn.Module) -> Loss:
    return lambda x, y: network(x, y, normalize=True)


def _one_by_one(loss: Loss) -> Loss:
    return lambda x, y: [loss(x[row : row + 1], y[row : row + 1]) for row in range(len(x))]


def _channels_last(loss: Loss) -> Loss:
    layout = {"memory_format": torch.channels_last}
    return lambda x, y: loss(x.contiguous(**layout), y.contiguous(**layout))


def _speed(loss: Loss, generated: torch.Tensor, target: torch.Tensor, seconds: float) -> float:
    batches = list(_batches(generated, target))
    loss(*batches[0])
    start, done = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        for batch in batches:
            loss(*batch)
            done += len(batch[0])
    return done / (time.perf_counter() - start)


def _batches(generated: torch.Tensor, target: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for first in range(0, len(generated), 16):
        yield generated[first : first + 16], target[first : first + 16]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["speeds", vgg, alex, pairs, seconds]:
            print(json.dumps(speeds(vgg, alex, pairs, float(seconds))))
        case ["two_folders", alex, generated, target]:
            print(two_folders(alex, generated, target))
