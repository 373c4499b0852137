"""Draws sample pictures before, while and after they are optimized: `python -m benchmarks.strip`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.samples import make_pairs
from transforms.descent.settings import DEFAULT_OBJECTIVE, Descent
from transforms.descent.slots import Start, optimize_pairs
from transforms.images.decode import DecodePolicy
from transforms.images.pairs import decode_pair
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.plan import Plan

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "optimize.jpg"
PICTURES = ("astronaut/jpeg-q10", "chelsea/noise", "coffee/resampled-x4")
STEPS = (5, 15, 50)
SIDE = 160
MARGIN, HEADER = 4, 18


def main() -> int:
    """Optimize the pictures for several numbers of steps, and write the strip to docs/optimize.jpg."""
    rows = {pair.id: _row(pair.generated, pair.target) for pair in make_pairs() if pair.id in PICTURES}
    titles = ("generated", *(f"{steps} steps" for steps in STEPS), "target")
    width = len(titles) * (SIDE + MARGIN) - MARGIN
    strip = Image.new("RGB", (width, HEADER + len(PICTURES) * (SIDE + MARGIN) - MARGIN), "white")
    draw = ImageDraw.Draw(strip)
    for column, title in enumerate(titles):
        draw.text((column * (SIDE + MARGIN) + 2, 3), title, fill="black")
        for row, id in enumerate(PICTURES):
            position = column * (SIDE + MARGIN), HEADER + row * (SIDE + MARGIN)
            strip.paste(Image.fromarray(rows[id][column]), position)
    OUTPUT.parent.mkdir(exist_ok=True)
    strip.save(OUTPUT, quality=88)
    print(OUTPUT)
    return 0


def _row(generated: bytes, target: bytes) -> list[np.ndarray]:
    pair = decode_pair(generated, target, DecodePolicy())
    start, goal = (image[40 : 40 + SIDE, 40 : 40 + SIDE] for image in (pair.generated, pair.target))
    weights = NETWORKS["vgg16_lpips"].weights()
    objective = ObjectiveFunction(Plan((), parse_objective(DEFAULT_OBJECTIVE), weights={"vgg16_lpips": weights}))
    reached = [
        next(iter(optimize_pairs([Start(0, start, goal)], objective, Descent(max_steps=steps), slots=1))).image
        for steps in STEPS
    ]
    return [start, *reached, goal]


if __name__ == "__main__":
    sys.exit(main())
