"""Scores the reference pairs with the original LPIPS; prints JSON. Runs in the environment of `lpips_reference`.

Scaling, network, linear layers and distance are those of the package `lpips`. The trunk's weights are torchvision's and
come from our weights file (pipeline/weights.py); the package would download them from outside the package index.
Only the arithmetic is float64; weights and scaling constants stay the float32 numbers of the package.
"""

import json
import sys
from importlib.metadata import version
from typing import Any

import lpips  # type: ignore[import-not-found]
import numpy as np
import safetensors.numpy
import torch  # type: ignore[import-not-found]

from benchmarks.lpips_reference import ReferencePair, reference_pairs

# The convolutions of torchvision's vgg16().features in the five slices that lpips makes of it.
SLICES = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}


def original_lpips(weights: str) -> torch.nn.Module:
    """LPIPS v0.1 on VGG16 in float32 and evaluation mode, its trunk from our safetensors file (HWIO kernels)."""
    # pnet_rand keeps lpips from downloading the trunk; the strict load below replaces all random values.
    network = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    tensors = safetensors.numpy.load_file(weights)
    trunk = {}
    for block, indices in SLICES.items():
        for layer, index in enumerate(indices, start=1):
            kernel = np.ascontiguousarray(tensors[f"conv{block}_{layer}.kernel"].transpose(3, 2, 0, 1))
            trunk[f"slice{block}.{index}.weight"] = torch.from_numpy(kernel)
            trunk[f"slice{block}.{index}.bias"] = torch.from_numpy(tensors[f"conv{block}_{layer}.bias"])
    network.net.load_state_dict(trunk, strict=True)
    return network


def score(network: torch.nn.Module, pair: ReferencePair, dtype: torch.dtype) -> tuple[float, list[float], float]:
    """Distance, share of each layer, and L2 norm of the gradient with respect to the generated image in [0, 1]."""
    generated, target = (_as_batch(image, dtype) for image in (pair.generated, pair.target))
    generated.requires_grad_(True)
    value, layers = network.to(dtype)(generated, target, retPerLayer=True, normalize=True)
    (gradient,) = torch.autograd.grad(value.sum(), generated)
    return value.item(), [layer.item() for layer in layers], gradient.norm().item()


def _as_batch(image: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """uint8 [H, W, 3] to `dtype` [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[np.newaxis].to(dtype) / 255


def reference_case(network: torch.nn.Module, pair: ReferencePair) -> dict[str, Any]:
    """The file's entry for one pair."""
    value_float32, _, _ = score(network, pair, torch.float32)
    value, layers, gradient_l2 = score(network, pair, torch.float64)
    height, width, _ = pair.target.shape
    return {
        "name": pair.name,
        "height": height,
        "width": width,
        "sha256": pair.sha256,
        "value": value,
        "value_float32": value_float32,
        "layers": layers,
        "gradient_l2": gradient_l2,
    }


def main(weights: str) -> None:
    """Print the whole file."""
    network = original_lpips(weights)
    reference = {
        "made_by": "python -m benchmarks.lpips_reference",
        "versions": {name: version(name) for name in ("lpips", "torch", "torchvision", "numpy")},
        "cases": [reference_case(network, pair) for pair in reference_pairs()],
    }
    # The gradient of lpips is NaN if all features of a pixel are zero. Such a pair cannot be a reference: dumps raises.
    print(json.dumps(reference, indent=2, allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1])
