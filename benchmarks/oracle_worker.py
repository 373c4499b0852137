"""Scores pairs with other people's implementations; prints JSON. Runs in an environment of `oracles`.

Arithmetic is float64 where the oracle allows it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# uint8 [H, W, 3], generated and target, to a number.
Oracle = Callable[[np.ndarray, np.ndarray], float]


def main(oracle: str, pairs: str, *weights: str) -> None:
    """Print `{loss: {pair: value}}`; null where the oracle is not defined.

    Args:
        oracle: name in `ORACLES`.
        pairs: path of an .npz file with a uint8 array [2, H, W, 3] per pair, the generated image first.
        weights: paths of our weights files, for oracles on networks: VGG16 and AlexNet of LPIPS.
    """
    losses = ORACLES[oracle](*weights)
    values = {
        loss: {name: _score(score, *images) for name, images in np.load(pairs).items()}
        for loss, score in losses.items()
    }
    print(json.dumps(values))


def _score(score: Oracle, generated: np.ndarray, target: np.ndarray) -> float | None:
    try:
        value = float(score(generated, target))
    except (ValueError, RuntimeError, AssertionError):  # their ways to say that an image is too small
        return None
    return value if np.isfinite(value) else None


def lpips(vgg: str, alex: str) -> Mapping[str, Oracle]:
    """The authors' LPIPS, on the trunks of our weights files."""
    from benchmarks.lpips_reference_worker import original_lpips

    networks = {f"lpips_{net}": original_lpips(path, net).double() for net, path in {"vgg": vgg, "alex": alex}.items()}
    return {name: _on_tensors(network, normalize=True) for name, network in networks.items()}


def dists(vgg: str, _: str) -> Mapping[str, Oracle]:
    """The authors' DISTS."""
    return {"dists": _on_tensors(original_dists(vgg).double())}


def original_dists(vgg: str) -> Any:
    """The authors' DISTS in float32, on the trunk of our weights file."""
    import DISTS_pytorch.DISTS_pt as package  # type: ignore[import-not-found]
    import safetensors.numpy
    import torch  # type: ignore[import-not-found]
    import torchvision  # type: ignore[import-not-found]

    network = torchvision.models.vgg16()
    tensors = safetensors.numpy.load_file(vgg)
    kernels = [name.removesuffix(".kernel") for name in tensors if name.endswith(".kernel")]
    convolutions = (layer for layer in network.features if isinstance(layer, torch.nn.Conv2d))
    for name, layer in zip(sorted(kernels), convolutions, strict=True):
        kernel = np.ascontiguousarray(tensors[f"{name}.kernel"].transpose(3, 2, 0, 1))
        layer.weight.data, layer.bias.data = torch.from_numpy(kernel), torch.from_numpy(tensors[f"{name}.bias"])
    # The package would download the trunk.
    package.models.vgg16 = lambda **_: network
    return package.DISTS()


def piq() -> Mapping[str, Oracle]:
    """piq."""
    import piq as package  # type: ignore[import-not-found]

    return {
        "ssim": _on_tensors(package.ssim, downsample=False),
        "ms_ssim": _on_tensors(package.multi_scale_ssim),
        "gmsd": _on_tensors(package.gmsd),
        "psnr": _on_tensors(package.psnr),
    }


def torchmetrics() -> Mapping[str, Oracle]:
    """torchmetrics."""
    from torchmetrics.functional import image  # type: ignore[import-not-found]

    return {
        "ssim": _on_tensors(image.structural_similarity_index_measure, data_range=1.0),
        "ms_ssim": _on_tensors(image.multiscale_structural_similarity_index_measure, data_range=1.0),
        "psnr": _on_tensors(image.peak_signal_noise_ratio, data_range=1.0),
    }


def skimage() -> Mapping[str, Oracle]:
    """scikit-image. Luma comes from its `rgb2ycbcr`, and for MATLAB's convention from NumPy."""
    from skimage import color, metrics

    def luma(image: np.ndarray) -> np.ndarray:
        return np.asarray(color.rgb2ycbcr(image / 255)[..., 0])

    def gray(image: np.ndarray) -> np.ndarray:
        weights = np.linalg.inv([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])[0]
        return np.floor(image @ weights + 0.5)

    def ssim(generated: np.ndarray, target: np.ndarray, **settings: Any) -> float:
        wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        return float(metrics.structural_similarity(generated, target, **wang, **settings))

    def differences(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.asarray(color.deltaE_ciede2000(*(color.rgb2lab(image / 255) for image in (target, generated))))

    return {
        "psnr": lambda g, t: metrics.peak_signal_noise_ratio(t / 255, g / 255, data_range=1),
        "psnr_y": lambda g, t: metrics.peak_signal_noise_ratio(luma(t), luma(g), data_range=255),
        "ssim": lambda g, t: ssim(g / 255, t / 255, channel_axis=2, data_range=1),
        "ssim_y": lambda g, t: ssim(luma(g), luma(t), data_range=255),
        "ssim_luma": lambda g, t: ssim(gray(g), gray(t), data_range=255),
        "ciede2000": lambda g, t: differences(g, t).mean(),
        "ciede2000_p95": lambda g, t: float(np.percentile(differences(g, t), 95)),
    }


def flip() -> Mapping[str, Oracle]:
    """NVIDIA's FLIP, which computes in float32."""
    import flip_evaluator  # type: ignore[import-not-found]

    def score(generated: np.ndarray, target: np.ndarray) -> float:
        images = (image.astype(np.float32) / np.float32(255) for image in (target, generated))
        error_map, *_ = flip_evaluator.evaluate(*images, "LDR", applyMagma=False)
        # Its own mean is summed in float32.
        return float(np.mean(error_map, dtype=np.float64))

    return {"flip": score}


ORACLES: dict[str, Callable[..., Mapping[str, Oracle]]] = {
    oracle.__name__: oracle for oracle in (lpips, dists, piq, torchmetrics, skimage, flip)
}


def _on_tensors(function: Callable[..., Any], **settings: Any) -> Oracle:
    """The function of float64 tensors [1, 3, H, W] in [0, 1] as one of arrays."""
    import torch

    def score(generated: np.ndarray, target: np.ndarray) -> float:
        images = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 255 for image in (generated, target))
        with torch.no_grad():
            return float(function(*images, **settings))

    return score


if __name__ == "__main__":
    main(*sys.argv[1:])
