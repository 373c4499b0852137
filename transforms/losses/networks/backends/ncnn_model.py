"""Describe a network to ncnn: its layers as the text of a `.param` file, its weights as a `.bin` file."""

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from transforms.losses.networks.layers import Layer

# The network's input.
IMAGE = "data"

# ncnn marks weights that are plain float32 with this word.
_PLAIN_FLOAT32 = struct.pack("<I", 0)


class NcnnModel(NamedTuple):
    """A network as ncnn reads it.

    Attributes:
        text: the content of a `.param` file: `data` is the input's name, every layer has the name of its output.
        weights: the content of a `.bin` file.
        layers: the layers, shallowest first.
        shape: `(layer, height, width, source) -> (C, h, w)`, the shape of a layer's output for an input of this size;
            `source` is `data` for an image, or a shallower layer whose output is the input.
    """

    text: str
    weights: bytes
    layers: tuple[str, ...]
    shape: Callable[[str, int, int, str], tuple[int, int, int]]


def describe(layers: Mapping[str, Layer], tensors: Mapping[str, np.ndarray]) -> NcnnModel:
    """Describe a network whose poolings are max-poolings.

    Args:
        layers: by the name of its output, shallowest first.
        tensors: for each convolution `<name>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
    """
    lines, weights = [f"Input {IMAGE} 0 1 {IMAGE}"], b""
    source, channels = IMAGE, 3

    def add(kind: str, name: str, options: str) -> None:
        nonlocal source
        lines.append(f"{kind} {name} 1 1 {source} {name} {options}")
        source = name

    for name, layer in layers.items():
        pooled = f"{name}_pooled" if layer.convolution else name
        if layer.pooled:
            add("Pooling", pooled, f"0=0 1={layer.pooled} 2=2 5=1")
        if layer.convolution:
            kernel, bias = (tensors[f"{layer.convolution}.{part}"] for part in ("kernel", "bias"))
            channels = bias.size
            sizes = f"0={channels} 1={len(kernel)} 3={layer.stride} 4={_padding(layer, kernel)} 5=1 6={kernel.size} 9=1"
            add("Convolution", name, sizes)
            # From HWIO to OIHW.
            weights += _packed(kernel.transpose(3, 2, 0, 1), bias)

    def shape(layer: str, height: int, width: int, source: str = IMAGE) -> tuple[int, int, int]:
        return _shape(layers, tensors, layer, height, width, source)

    text = "\n".join(("7767517", f"{len(lines)} {len(lines)}", *lines, ""))
    return NcnnModel(text, weights, tuple(layers), shape)


def describe_apart(
    layers: Mapping[str, Layer], tensors: Mapping[str, np.ndarray], back: bool = False
) -> tuple[str, bytes]:
    """Describe the convolutions of a network each by itself: `relu1_1` has the input `relu1_1_input`.

    None adds zeros around its input.

    Args:
        layers: as for `describe`; their poolings are left out.
        tensors: as for `describe`.
        back: whether to describe, instead of a convolution and ReLU, the way of a gradient back through the
            convolution: one with the kernel turned by 180 degrees, from the output's channels to the input's.

    Returns:
        the content of a `.param` file and of a `.bin` file.
    """
    lines, weights = [], b""
    for name, layer in layers.items():
        if layer.convolution:
            kernel, bias = (tensors[f"{layer.convolution}.{part}"] for part in ("kernel", "bias"))
            # From HWIO to OIHW.
            kernel = kernel[::-1, ::-1].transpose(2, 3, 0, 1) if back else kernel.transpose(3, 2, 0, 1)
            sizes = f"0={len(kernel)} 1={kernel.shape[2]} 3={layer.stride} 6={kernel.size}"
            lines.append(f"Input {name}_input 0 1 {name}_input")
            lines.append(f"Convolution {name} 1 1 {name}_input {name} {sizes} {'5=0' if back else '5=1 9=1'}")
            weights += _packed(kernel) if back else _packed(kernel, bias)
    return "\n".join(("7767517", f"{len(lines)} {len(lines)}", *lines, "")), weights


def _packed(kernel: np.ndarray, *bias: np.ndarray) -> bytes:
    return b"".join((_PLAIN_FLOAT32, *(np.ascontiguousarray(part, "<f4").tobytes() for part in (kernel, *bias))))


def _padding(layer: Layer, kernel: np.ndarray) -> int:
    return len(kernel) // 2 if layer.padding is None else layer.padding


def _shape(
    layers: Mapping[str, Layer], tensors: Mapping[str, np.ndarray], wanted: str, height: int, width: int, source: str
) -> tuple[int, int, int]:
    sides, channels = np.array([height, width]), 3
    for name, layer in layers.items():
        if layer.pooled:
            sides = (sides - layer.pooled) // 2 + 1
        if layer.convolution:
            kernel = tensors[f"{layer.convolution}.kernel"]
            sides, channels = (sides + 2 * _padding(layer, kernel) - len(kernel)) // layer.stride + 1, kernel.shape[3]
        if name == source:
            sides = np.array([height, width])
        if name == wanted:
            break
    return channels, int(sides[0]), int(sides[1])
