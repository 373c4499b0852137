"""Score the reference pairs with the original LPIPS; prints JSON. Runs in the environment that `lpips_reference` makes.

Scaling, network, linear layers and distance are those of the package `lpips`. Its trunk's weights come from our file,
which carries torchvision's (pipeline/weights.py): the package would download them, and from no package index.
float64 means the arithmetic; weights and scaling constants stay the float32 numbers that the package has.
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

# The convolutions of torchvision's vgg16().features, as lpips spreads them over its five slices.
SLICES = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}


def original_lpips(weights: str) -> torch.nn.Module:
    """LPIPS v0.1 of VGG16, in evaluation mode and float32, with the trunk of our safetensors file (HWIO kernels)."""
    # pnet_rand keeps lpips from downloading the trunk; the strict load below leaves none of the random values.
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
    """Distance, its five layers' shares, and the L2 norm of its gradient to the generated image in [0, 1]."""
    generated, target = (_as_batch(image, dtype) for image in (pair.generated, pair.target))
    generated.requires_grad_(True)
    value, layers = network.to(dtype)(generated, target, retPerLayer=True, normalize=True)
    (gradient,) = torch.autograd.grad(value.sum(), generated)
    return value.item(), [layer.item() for layer in layers], gradient.norm().item()


def _as_batch(image: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """uint8 [H, W, 3] to `dtype` [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[np.newaxis].to(dtype) / 255


def reference_case(network: torch.nn.Module, pair: ReferencePair) -> dict[str, Any]:
    """The entry of one pair in the file."""
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
    # lpips' gradient is NaN where a pixel's features are all zero; such a pair is no reference and stops here.
    print(json.dumps(reference, indent=2, allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1])
