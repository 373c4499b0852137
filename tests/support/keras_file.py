"""Writes VGG16's weights like the file that Keras publishes, vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5."""

from pathlib import Path

import h5py
import numpy as np

CONVOLUTIONS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}


def write_keras_file(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write tensors arranged as `lpips_weights.VGG16.load` returns them; kernels for RGB become Caffe's, for BGR."""
    layers = ["input_1"]
    for block, convolutions in CONVOLUTIONS.items():
        layers += [f"block{block}_conv{number}" for number in range(1, convolutions + 1)] + [f"block{block}_pool"]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.0.0"
        for layer in layers:
            group = file.create_group(layer)
            if "conv" not in layer:
                group.attrs["weight_names"] = np.empty(0, "S1")
                continue
            name = f"conv{layer[5]}_{layer[11]}"
            kernel = tensors[f"{name}.kernel"]
            group[f"{layer}_W_1:0"] = kernel[:, :, ::-1] if name == "conv1_1" else kernel
            group[f"{layer}_b_1:0"] = tensors[f"{name}.bias"]
            group.attrs["weight_names"] = [f"{layer}_W_1:0".encode(), f"{layer}_b_1:0".encode()]
    return path
