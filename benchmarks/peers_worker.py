"""Measures other people's implementations; prints JSON. Runs in environments with PyTorch that `peers` makes."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch  # type: ignore[import-not-found]
import torchvision  # type: ignore[import-not-found]
from PIL import Image

from benchmarks.lpips_reference_worker import original_lpips
from benchmarks.oracle_worker import original_dists

# It takes images [B, 3, H, W] in [0, 1].
Loss = Callable[[torch.Tensor, torch.Tensor], Any]
# By loss and by package with its settings, pairs per second.
Speeds = dict[str, dict[str, float]]


def speeds(vgg: str, alex: str, pairs: str, seconds: float) -> Speeds:
    """Measure lpips, dists-pytorch, piq and torchmetrics on images in memory.

    Args:
        vgg: path of our weights file of VGG16.
        alex: of AlexNet.
        pairs: path of an .npz file with `generated` and `target`, uint8 [N, H, W, 3].
        seconds: length of each measurement.
    """
    # Here, because pyiqa's environment lacks them.
    import piq  # type: ignore[import-not-found]
    from torchmetrics.functional import image as torchmetrics  # type: ignore[import-not-found]

    networks: dict[str, torch.nn.Module] = {
        "lpips_vgg": original_lpips(vgg, "vgg"),
        "lpips_alex": original_lpips(alex, "alex"),
        "dists": original_dists(vgg),
    }
    images = _images(pairs)
    found: Speeds = {}
    for loss, network in networks.items():
        package = "dists-pytorch" if loss == "dists" else "lpips"
        scaled = network if loss == "dists" else _of_unit_range(network)
        found[loss] = _network_speeds(package, network, scaled, *images, seconds)
    ssim = torchmetrics.structural_similarity_index_measure
    for loss, packages in {
        "ssim": {
            "piq": lambda x, y: piq.ssim(x, y, downsample=False, reduction="none"),
            "torchmetrics": lambda x, y: ssim(x, y, data_range=1.0, reduction="none"),
        },
        "gmsd": {"piq": lambda x, y: piq.gmsd(x, y, reduction="none")},
        "psnr": {"piq": lambda x, y: piq.psnr(x, y, reduction="none")},
    }.items():
        found[loss] = {name: _speed(function, *images, seconds) for name, function in packages.items()}
    return found


def speeds_of_pyiqa(vgg: str, alex: str, pairs: str, seconds: float) -> Speeds:
    """Measure pyiqa, as `speeds`; its networks take our weights, where it would download them."""
    import pyiqa  # type: ignore[import-not-found]

    images = _images(pairs)
    found = {
        f"lpips_{net}": _network_speeds("pyiqa", network, network, *images, seconds)
        for net, network in {"vgg": _lpips_of_pyiqa(vgg, "vgg"), "alex": _lpips_of_pyiqa(alex, "alex")}.items()
    }
    # Its `ssim` is one of luma; `ssimc` is that of RGB.
    for loss, metric in {"ssim": "ssimc", "gmsd": "gmsd", "psnr": "psnr"}.items():
        found[loss] = {"pyiqa": _speed(pyiqa.create_metric(metric, device="cpu"), *images, seconds)}
    return found


def _lpips_of_pyiqa(weights: str, net: str) -> torch.nn.Module:
    from pyiqa.archs.lpips_arch import LPIPS  # type: ignore[import-not-found]

    constructor = {"vgg": "vgg16", "alex": "alexnet"}[net]
    without_weights = partial(getattr(torchvision.models, constructor), weights=None)
    # pyiqa downloads the trunk even where it is told not to. The strict load below replaces all random values.
    with patch.object(torchvision.models, constructor, lambda **_: without_weights()):
        network = LPIPS(net=net, pretrained=False, pnet_rand=True)
    network.load_state_dict(original_lpips(weights, net).state_dict(), strict=True)
    return network


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


def _images(pairs: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.load(pairs)
    generated, target = (torch.from_numpy(images[side]).permute(0, 3, 1, 2) / 255 for side in ("generated", "target"))
    return generated, target


def _network_speeds(
    package: str, network: torch.nn.Module, loss: Loss, generated: torch.Tensor, target: torch.Tensor, seconds: float
) -> dict[str, float]:
    """The speeds of a loss on a network by settings, one by one first."""
    found = {f"{package}, one by one": _speed(_one_by_one(loss), generated, target, seconds)}
    network.to(memory_format=torch.channels_last)
    found[f"{package}, channels_last"] = _speed(_channels_last(loss), generated, target, seconds)
    with torch.autocast("cpu", torch.bfloat16):
        found[f"{package}, bfloat16"] = _speed(_channels_last(loss), generated, target, seconds)
    return found


def _one_by_one(loss: Loss) -> Loss:
    return lambda x, y: [loss(x[row : row + 1], y[row : row + 1]) for row in range(len(x))]


def _channels_last(loss: Loss) -> Loss:
    layout = {"memory_format": torch.channels_last}
    return lambda x, y: loss(x.contiguous(**layout), y.contiguous(**layout))


@torch.inference_mode()
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
        case ["speeds_of_pyiqa", vgg, alex, pairs, seconds]:
            print(json.dumps(speeds_of_pyiqa(vgg, alex, pairs, float(seconds))))
        case ["two_folders", alex, generated, target]:
            print(two_folders(alex, generated, target))
