"""Measures how exact the losses are: `python -m benchmarks.accuracy`.

Compares every loss with the float64 NumPy reference of the tests and with other people's implementations (`oracles`),
for sample degradations at odd and tiny sizes; LPIPS with the values of the original PyTorch implementation
(benchmarks/lpips_reference.py); and bfloat16 and float16 with float32 on the sample photographs. Writes
docs/accuracy.md, and for the tests the oracles' values of `reference_pairs` into `ORACLE_FILE`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pkgutil import resolve_name

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.lpips_reference import REFERENCE_FILE, ROOT, reference_pairs
from benchmarks.oracles import CRATE, ORACLES, Pairs, Values, score_with, score_with_crate
from pipeline.samples import CORRUPTIONS, make_pairs
from transforms.images.decode import DecodePolicy
from transforms.images.pairs import decode_pair
from transforms.losses.catalog import LOSSES
from transforms.losses.evaluate import Evaluator
from transforms.losses.plan import Plan

NETWORK_LOSSES = ("lpips_vgg", "lpips_alex", "vgg_mse", "style")
PAGE = ROOT / "docs" / "accuracy.md"
ORACLE_FILE = ROOT / "tests" / "data" / "oracle_values.json"

# Below this LPIPS the two images are so nearly identical that a relative error means nothing.
NEARLY_IDENTICAL = 1e-3

SIZES = ((177, 163), (64, 64), (33, 47), (17, 16), (9, 11))
NUMPY = "NumPy in float64"
# Oracles whose convention is not ours, or whose own precision is coarser.
REASONS = {
    ("psnr", "piq 0.8.0"): "piq adds 1e-8 to the squared error",
    ("ssim", "torchmetrics 1.9.0"): "torchmetrics reflects the border and averages the whole image",
    ("ms_ssim", "piq 0.8.0"): "piq repeats the first row and column where either side is odd",
    ("gmsd", "piq 0.8.0"): "piq does not round the luma, drops odd rows, and divides by N instead of N - 1",
    ("flip", "flip-evaluator 1.7"): "it computes in float32",
    ("ssimulacra2", CRATE): "its recursive blur adds up the rounding of float32",
}
TEXT = """# Accuracy

`python -m benchmarks.accuracy` writes this page. It scores every degradation of the samples, each on another
photograph, cut to {sizes} pixels, and compares each loss with an independent NumPy reference
in float64 and with other people's implementations, in float64 where they allow it. A relative difference is one over
the value, or over a tenth of the loss' range where that is larger. A pair is left out where either side is not defined.

{table}
[Accuracy and speed](accuracy_and_speed.md#accuracy) compares LPIPS with its original pair by pair, and the other
precisions with float32.
"""


def main() -> int:
    """Measure, and print the tables."""
    console = Console(width=160)
    console.print("every loss in float32 against references and oracles", _against_all(), sep="\n")
    console.print("LPIPS in float32 against the original in float64", _against_the_original(), sep="\n")
    console.print("the other precisions against float32 on the samples", _between_precisions(), sep="\n")
    return 0


def _against_all() -> Table:
    """Compare every loss with everything else; write the page and the file for the tests."""
    pairs = _sample_pairs()
    stored = {pair.name: np.stack([pair.generated, pair.target]) for pair in reference_pairs()}
    scored = {name: score_with(oracle, {**pairs, **stored}) for name, oracle in ORACLES.items()}
    scored[CRATE] = score_with_crate({**pairs, **stored})
    ORACLE_FILE.write_text(_rounded_json(scored, stored), encoding="utf-8")
    scored = {NUMPY: _in_float64(pairs), **scored}
    ours = _score(pairs)
    compared = {
        (loss, oracle): _compared(ours[loss], values[loss])
        for loss in LOSSES
        for oracle, values in scored.items()
        if loss in ours and loss in values
    }
    rows = [_difference(*names, values) for names, values in compared.items() if values]
    heads = ("loss", "against", "pairs", "difference", "relative", "largest at", "because")
    lines = [heads, ["---"] * len(heads), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    sizes = ", ".join(f"{height}x{width}" for height, width in SIZES)
    page = TEXT.format(sizes=sizes, table="".join(f"| {' | '.join(line)} |\n" for line in lines))
    PAGE.write_text(page, encoding="utf-8")
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    return table


def _sample_pairs() -> Pairs:
    """Every degradation of the samples at every size, each degradation on another photograph."""
    by_degradation: dict[str, list[np.ndarray]] = {}
    for pair in make_pairs():
        if pair.degradation not in CORRUPTIONS:
            decoded = decode_pair(pair.generated, pair.target, DecodePolicy())
            by_degradation.setdefault(pair.degradation, []).append(np.stack([decoded.generated, decoded.target]))
    return {
        f"{degradation} {height}x{width}": np.ascontiguousarray(
            photos[i % len(photos)][:, 20:, 20:][:, :height, :width]
        )
        for i, (degradation, photos) in enumerate(by_degradation.items())
        for height, width in SIZES
    }


def _score(pairs: Pairs) -> Values:
    evaluator = _evaluator("float32", [name for name in LOSSES if not name.endswith("_keras")])
    values: Values = {}
    for name, (generated, target) in pairs.items():
        for loss, value in evaluator(generated[None], target[None]).items():
            values.setdefault(loss, {})[name] = float(value[0])
    return values


def _in_float64(pairs: Pairs) -> Values:
    """The losses on pixels, as the tests' reference defines them."""
    values: Values = {name: {} for name, loss in LOSSES.items() if not loss.network}
    for (name, images), loss in product(pairs.items(), values):
        if min(images.shape[1:3]) >= LOSSES[loss].min_side:
            # The images themselves are float32, as for the losses: 8 bits over 255 are not exact.
            generated, target = (images / np.float32(255)).astype(np.float64)
            values[loss][name] = float(resolve_name(f"tests.support.reference:{loss}")(generated, target))
    return values


def _compared(ours: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> dict[str, tuple[float, float]]:
    """By pair both values, where both are defined and finite."""
    both = ((name, x, theirs.get(name)) for name, x in ours.items())
    return {name: (x, y) for name, x, y in both if x is not None and y is not None and np.isfinite([x, y]).all()}


def _difference(loss: str, oracle: str, values: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """A row of the table."""
    low, high = (float(bound) for bound in LOSSES[loss].range.strip("[]()").split(","))
    tenth = (high - low) / 10 if np.isfinite(high - low) else 0.0
    relative = {name: abs(x - y) / max(abs(y), tenth, 1e-12) for name, (x, y) in values.items()}
    worst = max(relative, key=relative.__getitem__)
    largest = max(abs(x - y) for x, y in values.values())
    reason = REASONS.get((loss, oracle), "")
    return loss, oracle, str(len(values)), f"{largest:.1e}", f"{relative[worst]:.1e}", worst, reason


def _rounded_json(scored: Mapping[str, Values], names: Pairs) -> str:
    """The values of these pairs, to the ten digits that tests can use."""
    kept = {
        oracle: {
            loss: {name: float(f"{by_pair[name]:.10g}") for name in names if by_pair.get(name) is not None}
            for loss, by_pair in values.items()
        }
        for oracle, values in scored.items()
    }
    return json.dumps({"made_by": "python -m benchmarks.accuracy", "values": kept}, indent=1) + "\n"


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
