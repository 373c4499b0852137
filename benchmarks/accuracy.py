"""Measures how exact the losses are: `python -m benchmarks.accuracy`.

Compares LPIPS with the values of the original PyTorch implementation (benchmarks/lpips_reference.py), and bfloat16 and
float16 with float32 on the sample photographs.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.lpips_reference import REFERENCE_FILE, reference_pairs
from pipeline.samples import CORRUPTIONS, make_pairs
from transforms.images.decode import DecodePolicy, decode_pair
from transforms.losses.evaluate import Evaluator
from transforms.losses.plan import Plan

NETWORK_LOSSES = ("lpips_vgg", "lpips_alex", "vgg_mse", "style")

# Below this LPIPS the two images are so nearly identical that a relative error means nothing.
NEARLY_IDENTICAL = 1e-3


def main() -> int:
    """Measure, and print the tables."""
    console = Console(width=110)
    console.print("LPIPS in float32 against the original in float64", _against_the_original(), sep="\n")
    console.print("the other precisions against float32 on the samples", _between_precisions(), sep="\n")
    return 0


def _against_the_original() -> Table:
    evaluator = _evaluator("float32", ("lpips_vgg", "lpips_alex"))
    pairs = {pair.name: pair for pair in reference_pairs()}
    table = Table("loss", "pair", "original", "ours", "difference")
    for case in json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))["cases"]:
        pair, original = pairs[case["name"]], case["value"]
        ours = float(evaluator(pair.generated[None], pair.target[None])[case["loss"]][0])
        table.add_row(case["loss"], pair.name, f"{original:.8f}", f"{ours:.8f}", f"{ours - original:+.1e}")
    return table


def _between_precisions() -> Table:
    pairs = [
        decode_pair(pair.generated, pair.target, DecodePolicy())
        for pair in make_pairs()
        if pair.degradation not in CORRUPTIONS
    ]
    evaluators = {name: _evaluator(name, NETWORK_LOSSES) for name in ("float32", "bfloat16", "float16")}
    values = {
        name: [evaluator(pair.generated[None], pair.target[None]) for pair in pairs]
        for name, evaluator in evaluators.items()
    }
    table = Table("precision", "loss", "median relative error", "largest absolute error", "rank correlation")
    for precision, loss in product(("bfloat16", "float16"), NETWORK_LOSSES):
        exact, rounded = (np.array([row[loss][0] for row in values[p]], np.float64) for p in ("float32", precision))
        different = exact > NEARLY_IDENTICAL
        relative = np.median(np.abs(rounded - exact)[different] / exact[different])
        largest = np.abs(rounded - exact).max()
        table.add_row(precision, loss, f"{relative:.1e}", f"{largest:.1e}", f"{_rank_correlation(exact, rounded):.6f}")
    return table


def _evaluator(precision: str, losses: Sequence[str]) -> Evaluator:
    return Evaluator(Plan(tuple(losses), precision=precision).with_weights())


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, which is Pearson's correlation of the ranks."""
    return float(np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1])


if __name__ == "__main__":
    sys.exit(main())
