"""Minimizes LPIPS like the example of the package `lpips`; prints JSON. Runs in the environment with PyTorch.

The loop that users of `lpips` start from: one image at a time, in [-1, 1], Adam with a learning rate of 0.001 and the
usual moments, clamped after each step.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]

from benchmarks.lpips_reference_worker import original_lpips

LEARNING_RATE = 1e-3


def descend(network: torch.nn.Module, generated: np.ndarray, target: np.ndarray, steps: int, ratio: float) -> Any:
    """Descend until the loss is below `ratio` of its first value, or for `steps` steps; return counts and seconds.

    Args:
        network: LPIPS.
        generated: uint8 [H, W, 3].
        target: uint8 [H, W, 3].
        steps: the most steps to make.
        ratio: the fraction of the first loss to reach; 0 makes all steps.
    """
    image, reference = (torch.from_numpy(i.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for i in (generated, target))
    image.requires_grad_(True)
    optimizer = torch.optim.Adam([image], lr=LEARNING_RATE, betas=(0.9, 0.999))
    losses: list[float] = []
    start = time.perf_counter()
    for _ in range(steps):
        loss = network(image, reference)
        losses.append(loss.item())
        if losses[-1] <= ratio * losses[0]:
            break
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        image.data.clamp_(-1, 1)
    return {"evaluations": len(losses), "seconds": time.perf_counter() - start, "loss": losses[-1] / losses[0]}


def main() -> int:
    """Descend on the pairs of an .npz file, which holds `generated` and `target` [B, H, W, 3]."""
    weights, path, steps, ratio = sys.argv[1:]
    network = original_lpips(weights)
    pairs = np.load(path)
    found = [
        descend(network, generated, target, int(steps), float(ratio))
        for generated, target in zip(pairs["generated"], pairs["target"], strict=True)
    ]
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
