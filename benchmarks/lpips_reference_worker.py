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

# By network of lpips, our names of the convolutions of torchvision's features in the five slices that lpips makes of
# them: for each slice, by its index.
SLICES = {
    "vgg": (
        {0: "conv1_1", 2: "conv1_2"},
        {5: "conv2_1", 7: "conv2_2"},
        {10: "conv3_1", 12: "conv3_2", 14: "conv3_3"},
        {17: "conv4_1", 19: "conv4_2", 21: "conv4_3"},
        {24: "conv5_1", 26: "conv5_2", 28: "conv5_3"},
    ),
    "alex": ({0: "conv1"}, {3: "conv2"}, {6: "conv3"}, {8: "conv4"}, {10: "conv5"}),
}
# From this side on, a network leaves every layer a pixel.
SMALLEST_SIDE = {"vgg": 16, "alex": 31}


def original_lpips(weights: str, net: str = "vgg") -> torch.nn.Module:
    """LPIPS v0.1 in float32 and evaluation mode, its trunk from our safetensors file (HWIO kernels)."""
    # pnet_rand keeps lpips from downloading the trunk; the strict load below replaces all random values.
    network = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    tensors = safetensors.numpy.load_file(weights)
    trunk = {}
    for number, convolutions in enumerate(SLICES[net], start=1):
        for index, name in convolutions.items():
            kernel = np.ascontiguousarray(tensors[f"{name}.kernel"].transpose(3, 2, 0, 1))
            trunk[f"slice{number}.{index}.weight"] = torch.from_numpy(kernel)
            trunk[f"slice{number}.{index}.bias"] = torch.from_numpy(tensors[f"{name}.bias"])
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


def reference_case(network: torch.nn.Module, loss: str, pair: ReferencePair) -> dict[str, Any]:
    """The file's entry for one pair and one of our losses."""
    value_float32, _, _ = score(network, pair, torch.float32)
    value, layers, gradient_l2 = score(network, pair, torch.float64)
    height, width, _ = pair.target.shape
    return {
        "loss": loss,
        "name": pair.name,
        "height": height,
        "width": width,
        "sha256": pair.sha256,
        "value": value,
        "value_float32": value_float32,
        "layers": layers,
        "gradient_l2": gradient_l2,
    }


def main(vgg: str, alex: str) -> None:
    """Print the whole file, from the weights on VGG16 and on AlexNet."""
    networks = {"vgg": original_lpips(vgg), "alex": original_lpips(alex, "alex")}
    reference = {
        "made_by": "python -m benchmarks.lpips_reference",
        "versions": {name: version(name) for name in ("lpips", "torch", "torchvision", "numpy")},
        "cases": [
            reference_case(network, f"lpips_{net}", pair)
            for net, network in networks.items()
            for pair in reference_pairs()
            if min(pair.target.shape[:2]) >= SMALLEST_SIDE[net]
        ],
    }
    # The gradient of lpips is NaN if all features of a pixel are zero. Such a pair cannot be a reference: dumps raises.
    print(json.dumps(reference, indent=2, allow_nan=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
