"""Small pictures, as arrays and encoded."""

from io import BytesIO

import numpy as np
from PIL import Image

# A picture of palette indices, and the colours they stand for.
INDICES = (np.arange(64).reshape(8, 8) % 4).astype(np.uint8)
COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 150, 0], [0, 0, 99]], np.uint8)


def noise(seed: int, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """Random pixels [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


def smooth(height: int, width: int, shift: int = 0) -> np.ndarray:
    """A textured colour gradient, uint8 [H, W, 3], in which no two rows and no two columns are equal."""
    y, x = np.mgrid[:height, :width]
    channels = [(3 * x + y + shift) % 256, (x + 2 * y) % 256, (x * y // 7 + 5 * shift) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def degraded(kind: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A generated image of this kind, values from 0 to 255 that need not be whole, and its target, uint8 [H, W, 3]."""
    rng = np.random.default_rng(height * 1000 + width)
    target = smooth(height, width)
    generated = {
        "unrelated": noise(1, height, width),
        "shifted": smooth(height, width, shift=20),
        "noisy": np.clip(target + rng.normal(0, 25, target.shape), 0, 255),
        "almost identical": np.clip(target + rng.integers(-1, 2, target.shape), 0, 255),
        "identical": target,
        "upside down": target[::-1],
    }[kind]
    return generated, target


def encode(pixels: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """The picture as the bytes of an image file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()
