"""A loss and its parts compare every layer once, and give the bits that each gives alone."""

import numpy as np
import pytest
from support.pictures import noise, smooth

from transforms.losses import perceptual, planar_evaluator
from transforms.losses import plan as plans
from transforms.losses.catalog import parts_of
from transforms.losses.evaluate import Evaluator
from transforms.losses.fused import lpips, planar
from transforms.losses.plan import Family, Plan
from transforms.losses.protocol import Protocol

SIZE = 48, 39
LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")
PARTS = tuple(part.name for part in parts_of("lpips_alex"))
# Where the distances of one layer are computed, by what computes them.
DISTANCES = {
    "ncnn": (planar, "_unit_distance"),
    "ncnn, in tiles": (planar, "_unit_distance"),
    "kernel": (lpips, "_distance"),
    "TensorFlow": (perceptual, "_distances"),
    "TensorFlow, masked": (perceptual, "_distances"),
    "TensorFlow, in tiles": (perceptual, "_distances"),
}


def test_families():
    plan = Plan(("mae",), vgg_layers=("pool3", "relu1_1"))
    assert plan.families(["lpips_alex_relu4", "mae", "vgg_mse", "lpips_vgg", "lpips_alex_relu2"]) == (
        Family("lpips_alex", ("lpips_alex_relu4", "lpips_alex_relu2"), ("relu2", "relu4")),
        Family("mae", ("mae",), ()),
        Family("vgg_mse", ("vgg_mse",), ("pool3", "relu1_1")),
        Family("lpips_vgg", ("lpips_vgg",), plan.compared_layers("lpips_vgg")),
    )


@pytest.mark.heavy
@pytest.mark.parametrize("path", DISTANCES)
def test_every_distance_is_computed_once(path, alexnet_weights, monkeypatch):
    def columns(*losses):
        plan = Plan(
            losses,
            precision="float16" if path == "TensorFlow" else "float32",
            protocol=Protocol(masked="masked" in path),
            weights={"alexnet_lpips": alexnet_weights},
            backend="ncnn" if "ncnn" in path else "tensorflow",
        )
        return Evaluator(plan)(generated, target, *mask)

    if "tiles" in path:
        monkeypatch.setattr(plans, "WHOLE_PIXELS", 0)
        monkeypatch.setattr(planar_evaluator, "WHOLE_BYTES", 0)
    generated, target = noise(1, *SIZE)[np.newaxis], smooth(*SIZE)[np.newaxis]
    mask = [np.arange(SIZE[1]) < np.full((1, SIZE[0], 1), 30)] if "masked" in path else []
    module, name = DISTANCES[path]
    computed, distance = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *of: computed.append(name) or distance(*of))
    together = columns(PARTS[3], "lpips_alex", *PARTS[:3], PARTS[4])
    assert len(computed) == len(LAYERS)
    for loss in ("lpips_alex", PARTS[3]):
        np.testing.assert_array_equal(together[loss], columns(loss)[loss], err_msg=loss)
    np.testing.assert_allclose(sum(together[part] for part in PARTS), together["lpips_alex"], rtol=1e-6)
