"""Descend LPIPS as the example of the package `lpips` does; prints JSON. Runs in the environment with PyTorch.

One image at a time, Adam on the image in [-1, 1] with a learning rate of 0.001 and the usual moments, clamped after
each step: what its users start from.
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
    """Steps and seconds until the loss is below `ratio` of its start, or `steps` were made.

    Args:
        network: LPIPS.
        generated: uint8 [H, W, 3].
        target: the same.
        steps: most steps.
        ratio: of the loss's start; 0: make all steps.
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
    """Descend on the pairs of an .npz file: `generated` and `target` [B, H, W, 3]."""
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
