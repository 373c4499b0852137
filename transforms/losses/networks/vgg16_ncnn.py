"""The convolutional part of VGG16 as ncnn reads it. Free of TensorFlow; see `vgg16` for the names of the layers."""

import struct
from collections.abc import Mapping

import numpy as np

from transforms.losses.networks.backends.ncnn import NcnnModel
from transforms.losses.networks.specs import VGG16_LAYERS

# ncnn marks weights that are plain float32 with this word.
_PLAIN_FLOAT32 = struct.pack("<I", 0)


def vgg16(tensors: Mapping[str, np.ndarray]) -> NcnnModel:
    """Describe VGG16 for ncnn.

    Args:
        tensors: as for `vgg16.Vgg16`.
    """
    lines, weights, source = ["Input input 0 1 data"], [], "data"
    for layer in VGG16_LAYERS:
        if layer.startswith("pool"):
            lines.append(f"Pooling {layer} 1 1 {source} {layer} 0=0 1=2 2=2 5=1")
        else:
            kernel, bias = (tensors[f"{layer.replace('relu', 'conv')}.{part}"] for part in ("kernel", "bias"))
            sizes = f"0={bias.size} 1=3 4=1 5=1 6={kernel.size} 9=1"
            lines.append(f"Convolution {layer} 1 1 {source} {layer} {sizes}")
            # From HWIO to OIHW.
            plain = (np.ascontiguousarray(part, "<f4").tobytes() for part in (kernel.transpose(3, 2, 0, 1), bias))
            weights += [_PLAIN_FLOAT32, *plain]
        source = layer
    text = "\n".join(("7767517", f"{len(lines)} {len(lines)}", *lines, ""))
    return NcnnModel(text, b"".join(weights), tuple(VGG16_LAYERS), _shape)


def _shape(layer: str, height: int, width: int) -> tuple[int, int, int]:
    # The smallest side of a layer is how much the poolings before it divide by.
    side, channels = VGG16_LAYERS[layer], min(32 << int(layer[4]), 512)
    return channels, height // side, width // side
