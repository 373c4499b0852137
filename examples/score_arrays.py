"""Score images that you hold as arrays: which of three restorations is closest to the photograph?

python examples/score_arrays.py
"""

import numpy as np

from pairloss import LOSSES, score


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth colourful picture, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(x), np.cos(y + x / 2), np.sin(y - x)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def main() -> None:
    target = picture()
    noise = np.random.default_rng(0).normal(0, 8, target.shape)
    restorations = {
        "identical": target,
        "brighter": np.minimum(target, 245) + np.uint8(10),
        "noisy": np.clip(target + noise, 0, 255).astype(np.uint8),
    }
    generated = np.stack(list(restorations.values()))
    targets = np.stack([target] * len(generated))

    columns = score(generated, targets, losses=("lpips_vgg", "ssim", "psnr", "fd_l1"), objective="lpips_vgg + fd_l1")

    print(f"{'':10}" + "".join(f"{name:>12}" for name in restorations))
    for name, values in columns.items():
        better = LOSSES[name].direction if name in LOSSES else "lower"
        print(f"{name:10}" + "".join(f"{value:12.4f}" for value in values) + f"   {better} is better")


if __name__ == "__main__":
    main()
