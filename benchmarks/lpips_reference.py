"""Stores the original LPIPS of 16 image pairs, on VGG16 and on AlexNet: `python -m benchmarks.lpips_reference`.

Makes a separate environment with PyTorch and the authors' package, https://github.com/richzhang/PerceptualSimilarity,
scores `reference_pairs()` in it and writes `tests/data/lpips_reference.json`. The tests compare our LPIPS with that
file, so they need neither PyTorch nor this command. A second run reuses the environment.

PyTorch for Linux on x86 from PyPI depends on the CUDA libraries, even on a CPU: a download of 3 GB, 6 GB on disk. To
avoid nearly all of it, set PIP_EXTRA_INDEX_URL to an index with PyTorch's CPU builds.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
REFERENCE_FILE = ROOT / "tests" / "data" / "lpips_reference.json"
REQUIREMENTS = ("torch==2.15.0", "torchvision==0.29.2", "lpips==0.1.4", "safetensors>=0.5")


@dataclass(frozen=True)
class ReferencePair:
    """Two images made by exact integer arithmetic, with the same pixels on every machine and with every NumPy.

    Attributes:
        name: a unique name, the kind and the size.
        generated: uint8 [H, W, 3], RGB.
        target: uint8 [H, W, 3], RGB.
    """

    name: str
    generated: np.ndarray
    target: np.ndarray

    @property
    def sha256(self) -> str:
        """The hash of the generated image's pixels followed by the target's, in hexadecimal."""
        return hashlib.sha256(self.generated.tobytes() + self.target.tobytes()).hexdigest()


def reference_pairs() -> tuple[ReferencePair, ...]:
    """The pairs in the order of the file: even and odd sizes, and both extremes of distance."""
    black, white = (np.full((16, 16, 3), level, np.uint8) for level in (0, 255))
    return (
        ReferencePair("noise_16x16", _noise(16, 16, seed=1), _noise(16, 16, seed=2)),
        ReferencePair("noise_17x23", _noise(17, 23, seed=3), _noise(17, 23, seed=4)),
        ReferencePair("noise_64x64", _noise(64, 64, seed=5), _noise(64, 64, seed=6)),
        ReferencePair("changed_17x23", _changed(_smooth(17, 23), seed=7), _smooth(17, 23)),
        ReferencePair("changed_96x33", _changed(_smooth(96, 33), seed=8), _smooth(96, 33)),
        ReferencePair("changed_128x128", _changed(_smooth(128, 128), seed=9), _smooth(128, 128)),
        ReferencePair("changed_40x200", _changed(_smooth(40, 200), seed=10), _smooth(40, 200)),
        ReferencePair("identical_64x64", _smooth(64, 64), _smooth(64, 64)),
        ReferencePair("one_level_64x64", _one_level_off(_smooth(64, 64)), _smooth(64, 64)),
        ReferencePair("flipped_96x33", _smooth(96, 33)[::-1], _smooth(96, 33)),
        ReferencePair("flipped_noise_40x200", _noise(40, 200, seed=11)[::-1], _noise(40, 200, seed=11)),
        ReferencePair("smooth_noise_128x128", _smooth(128, 128), _noise(128, 128, seed=12)),
        ReferencePair("black_white_16x16", black, white),
        ReferencePair("changed_31x31", _changed(_smooth(31, 31), seed=13), _smooth(31, 31)),
        ReferencePair("noise_31x46", _noise(31, 46, seed=14), _noise(31, 46, seed=15)),
        ReferencePair("changed_47x63", _changed(_smooth(47, 63), seed=16), _smooth(47, 63)),
    )


def _noise(height: int, width: int, seed: int) -> np.ndarray:
    # NumPy keeps the raw stream of a bit generator the same in all versions, but not the methods of default_rng.
    raw = np.random.PCG64(seed).random_raw(height * width * 3)
    return (raw >> np.uint64(56)).astype(np.uint8).reshape(height, width, 3)


def _smooth(height: int, width: int) -> np.ndarray:
    """Slanted waves with a slope and a period per channel; red and blue darken towards one side."""
    y, x = np.mgrid[:height, :width]
    red = _triangle(5 * x + 3 * y) * _triangle(2 * y + 90) // 255
    green = _triangle(4 * y - 7 * x)
    blue = _triangle(9 * x + 11 * y) * _triangle(x + 60) // 255
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def _triangle(phase: np.ndarray) -> np.ndarray:
    """A wave between 0 and 255 with period 510 and slope ±1."""
    return np.abs(phase % 510 - 255)


def _changed(image: np.ndarray, seed: int) -> np.ndarray:
    """Move every value by -8 to 7 levels."""
    height, width, _ = image.shape
    shift = _noise(height, width, seed).astype(np.int64) // 16 - 8
    return np.clip(image + shift, 0, 255).astype(np.uint8)


def _one_level_off(image: np.ndarray) -> np.ndarray:
    """Move one channel of the middle pixel by one level."""
    height, width, _ = image.shape
    moved = image.copy()
    moved[height // 2, width // 2, 1] ^= 1
    return moved


def main() -> int:
    """Make the environment, run the worker in it, and write the file."""
    # Here, because the workers and the tests import this module for the pairs alone.
    from transforms.losses.networks.specs import NETWORKS

    scored = run_with_pytorch("benchmarks.lpips_reference_worker", NETWORKS["alexnet_lpips"].weights().path)
    REFERENCE_FILE.parent.mkdir(parents=True, exist_ok=True)
    REFERENCE_FILE.write_text(scored, encoding="utf-8")
    print(REFERENCE_FILE)
    return 0


def run_with_pytorch(module: str, *arguments: str) -> str:
    """Run a worker module in the environment with PyTorch; return what it prints.

    Args:
        module: a module of this package, whose first argument is the path of our LPIPS weights.
        arguments: its other arguments.
    """
    # Here, because the workers and the tests import this module for the pairs alone.
    from transforms.losses.networks.specs import NETWORKS
    from transforms.losses.networks.weights_file import cache_directory

    weights = NETWORKS["vgg16_lpips"].weights()
    python = ensure_environment(cache_directory() / "envs" / "lpips", REQUIREMENTS)
    # lpips 0.1.4 calls torchvision in a way that torchvision deprecates on every construction.
    command = [str(python), "-W", "ignore::UserWarning", "-m", module, weights.path, *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def ensure_environment(directory: Path, requirements: Sequence[str]) -> Path:
    """Make an environment, or complete one that an earlier run left unfinished; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = directory / "bin" / "python"
    # If the pinned versions are there already, pip installs nothing and asks no index.
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
