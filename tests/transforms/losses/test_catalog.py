"""The catalogue of losses: its rows, its hints and its text, free of heavy imports."""

import subprocess
import sys
from pkgutil import resolve_name

import pytest

from transforms.losses.catalog import LOSSES, describe_losses, get_losses, parts_of
from transforms.losses.fused.planar import PlanarLoss
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS

NAMES = [
    "mae",
    "mse",
    "psnr",
    "psnr_y",
    "charbonnier",
    "sobel_l1",
    "sobel_l2",
    "fd_l1",
    "fd_l2",
    "gdl",
    "multiscale_fd",
    "tv",
    "gmsd",
    "ssim",
    "ssim_y",
    "ssim_luma",
    "ms_ssim",
    "ciede2000",
    "ciede2000_p95",
    "flip",
    "ssimulacra2",
    "lpips_vgg",
    "lpips_alex",
    "dists",
    "vgg_mse",
    "style",
    "vgg_mse_keras",
    "style_keras",
]
NETWORK = ["lpips_vgg", "lpips_alex", "dists", "vgg_mse", "style", "vgg_mse_keras", "style_keras"]


def test_the_losses_are_complete_and_in_order():
    whole = [name for name, loss in LOSSES.items() if not loss.part_of]
    assert whole == NAMES
    assert [name for name in whole if LOSSES[name].network] == NETWORK
    assert [name for name, loss in LOSSES.items() if not loss.differentiable] == [
        "psnr",
        "psnr_y",
        "gmsd",
        "ssim_luma",
        "ciede2000",
        "ciede2000_p95",
    ]


@pytest.mark.parametrize("module", ["transforms.losses.plan", "transforms.losses.objective", "pipeline.flags"])
def test_tables_and_flags_need_neither_tensorflow_nor_numba_nor_beam(module):
    code = f"import sys, {module}; print([m for m in ('tensorflow', 'numba', 'apache_beam') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_the_parts_of_lpips_are_its_layers():
    for name in NAMES:
        layers = LOSSES[name].layers if name.startswith("lpips") else ()
        assert [part.name for part in parts_of(name)] == [f"{name}_{layer}" for layer in layers]
    assert [loss.min_side for loss in parts_of("lpips_vgg")] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_row_names_is_there(name):
    loss = LOSSES[name]
    for dotted in filter(None, (loss.function, loss.kernel, loss.gradient_kernel)):
        assert callable(resolve_name(dotted))
    if network := NETWORKS.get(loss.network):
        assert set(loss.layers) <= set(network.layers)
        assert loss.min_side == network.smallest_side(loss.layers or LPIPS_LAYERS)
        for dotted in (network.load, network.fetch, network.cached):
            assert callable(resolve_name(dotted))
        assert set(network.layers) <= set(resolve_name(network.architecture))
        assert isinstance(resolve_name(loss.planar_kernel), PlanarLoss)


def test_get_losses_keeps_the_order_and_drops_repeats():
    assert get_losses(["ssim", "mae", "ssim"]) == (LOSSES["ssim"], LOSSES["mae"])


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("lpips", "lpips_vgg"), ("SSIM", "ssim"), ("sobel", "sobel_l"), ("ms-ssim", "ms_ssim")],
)
def test_an_unknown_name_gets_the_nearest_one(name, suggestion):
    with pytest.raises(ValueError, match=rf"'{name}'.*Did you mean '{suggestion}.*mae, mse"):
        get_losses(["mae", name])


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(ValueError, match=r"'zzz'.*mae, mse") as error:
        get_losses(["zzz"])
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_description_tells_what_there_is_to_know(name):
    loss, description = LOSSES[name], describe_losses()
    entry = description[f"\n{description}".index(f"\n{name}\n") :].split("\n    Source: ")
    assert loss.formula in entry[0]
    assert loss.range in entry[0]
    assert {"lower": " lower is", "higher": "higher is", "none": "neither"}[loss.direction] in entry[0]
    assert (f"{loss.min_side} pixels" in entry[0]) == (loss.min_side > 1)
    assert entry[1].startswith(loss.source)
