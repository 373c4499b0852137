"""The losses against values that other people's implementations gave: `python -m benchmarks.accuracy` stores them."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lpips_reference import reference_pairs
from transforms.losses.evaluate import Evaluator
from transforms.losses.plan import Plan

pytestmark = pytest.mark.heavy

FILE = Path(__file__).parents[2] / "data" / "oracle_values.json"
VALUES = json.loads(FILE.read_text(encoding="utf-8"))["values"]
PAIRS = {pair.name: pair for pair in reference_pairs()}
# Oracles that compute in float64 with our convention, then those that compute in float32.
EXACT = [
    *(("scikit-image 0.26.0", loss) for loss in ("psnr", "psnr_y", "ssim", "ssim_y", "ssim_luma")),
    *(("scikit-image 0.26.0", loss) for loss in ("ciede2000", "ciede2000_p95")),
    ("dists-pytorch 0.1", "dists"),
    ("lpips 0.1.4", "lpips_vgg"),
    ("lpips 0.1.4", "lpips_alex"),
]
TOLERANCES = {
    **dict.fromkeys(EXACT, (1e-05, 1e-07)),
    ("flip-evaluator 1.7", "flip"): (1e-4, 1e-5),
    # Its scale has 100 points, and its recursive blur adds up the rounding of float32.
    ("ssimulacra2 0.5.1 (crate)", "ssimulacra2"): (0, 0.15),
}


@pytest.mark.parametrize(("oracle", "loss"), TOLERANCES)
def test_equals_the_stored_value(lpips_weights, alexnet_weights, oracle, loss):
    rtol, atol = TOLERANCES[oracle, loss]
    weights = {"vgg16_lpips": lpips_weights, "vgg16_dists": lpips_weights, "alexnet_lpips": alexnet_weights}
    evaluator = Evaluator(Plan((loss,), weights=weights))
    values = VALUES[oracle][loss]
    assert len(values) >= 10
    for name, expected in values.items():
        (value,) = evaluator(PAIRS[name].generated[None], PAIRS[name].target[None])[loss]
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol, err_msg=name)
