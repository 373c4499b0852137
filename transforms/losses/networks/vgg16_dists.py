"""VGG16 as DISTS has it: torchvision's convolutions, and L2 pooling instead of max-pooling.

Ding, Ma, Wang and Simoncelli, Image Quality Assessment: Unifying Structure and Texture Similarity,
https://arxiv.org/abs/2004.07728. The convolutions are those of LPIPS' weights file. The weights of DISTS itself lie
beside this module: `dists.safetensors` holds alpha and beta of the authors' PyPI package `dists-pytorch` 0.1, with its
licence (MIT) in the file's metadata.
"""

from pathlib import Path

import numpy as np
import safetensors.numpy

from transforms.losses.networks.layers import Layer
from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.specs import LPIPS_LAYERS, VGG16_LAYERS
from transforms.losses.networks.weights_file import Tensors, check_hash

DISTS_FILE = Path(__file__).with_name("dists.safetensors")
DISTS_SHA256 = "c24a236b8e73e5bb94558ce7020da71ab958f0577bd3c335a3653445f7e04c58"

# Every pooling halves h and w, rounding up.
LAYERS = {
    name: Layer(pooled=3, pooling="l2") if name.startswith("pool") else Layer(name.replace("relu", "conv"))
    for name in VGG16_LAYERS
}


def load(content: bytes) -> tuple[Tensors, Tensors]:
    """Load LPIPS' weights file of VGG16, and the weights of DISTS beside it.

    Returns:
        the convolutions, and by stage, `image` before the layers, alpha and beta of its channels: float32 [2, C], of
        sum 1 over all stages.

    Raises:
        WeightsError: as `lpips_weights.LpipsWeights.load`, or the file of DISTS is damaged.
    """
    convolutions, _ = VGG16.load(content)
    dists = DISTS_FILE.read_bytes()
    check_hash(str(DISTS_FILE), dists, DISTS_SHA256)
    tensors = safetensors.numpy.load(dists)
    weights = np.stack([tensors["alpha"], tensors["beta"]]).astype(np.float64)
    channels = {"image": 3} | {layer: VGG16.heads[layer] for layer in LPIPS_LAYERS}
    ends = np.cumsum(list(channels.values()))[:-1]
    stages = np.split((weights / weights.sum()).astype(np.float32), ends, axis=1)
    return convolutions, dict(zip(channels, stages, strict=True))
