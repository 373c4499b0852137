"""Plans: the columns, losses, layers and networks that follow from a choice of losses."""

import dataclasses

import pytest

from transforms.losses.catalog import LOSSES
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS, VGG16_LAYERS
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.losses.protocol import Protocol


def test_layers_are_those_of_vgg16_in_their_order():
    blocks = (
        ("relu1_1", "relu1_2", "pool1"),
        ("relu2_1", "relu2_2", "pool2"),
        ("relu3_1", "relu3_2", "relu3_3", "pool3"),
        ("relu4_1", "relu4_2", "relu4_3", "pool4"),
        ("relu5_1", "relu5_2", "relu5_3", "pool5"),
    )
    assert tuple(layer for block in blocks for layer in block) == tuple(VGG16_LAYERS)


@pytest.mark.parametrize(
    ("layers", "side"),
    [
        (["relu1_1"], 1),
        (["relu1_2"], 1),
        (["pool1"], 2),
        (["relu2_1"], 2),
        (["pool2"], 4),
        (["relu3_3"], 4),
        (["pool3"], 8),
        (["relu4_2"], 8),
        (["pool4"], 16),
        (["relu5_1"], 16),
        (["pool5"], 32),
        (["pool5", "relu1_1"], 32),
        (["relu2_2", "relu3_1", "relu1_1"], 4),
        (LPIPS_LAYERS, 16),
    ],
)
def test_smallest_side_of_layers(layers, side):
    assert NETWORKS["vgg16_lpips"].smallest_side(layers) == side


@pytest.mark.parametrize(
    ("plan", "columns"),
    [
        (Plan(("mae",)), ("mae",)),
        (Plan(("style", "mae", "vgg_mse", "lpips_vgg")), ("style", "mae", "vgg_mse", "lpips_vgg")),
        (
            Plan(("style_keras", "mae", "vgg_mse_keras", "lpips_vgg")),
            ("style_keras", "mae", "vgg_mse_keras", "lpips_vgg"),
        ),
        (Plan(("psnr",), parse_objective("mae")), ("psnr", "objective")),
        (
            Plan(("mae",), parse_objective("vgg_mse_keras"), pixel_gradient=True),
            ("mae", "objective", "pixel_grad_l2", "pixel_grad_linf"),
        ),
    ],
)
def test_columns(plan, columns):
    assert tuple(column.name for column in plan.columns) == columns


ALL = tuple(name for name, loss in LOSSES.items() if not loss.part_of)
ONE_PIXEL = {"mae", "mse", "psnr", "psnr_y", "charbonnier", "ciede2000", "ciede2000_p95", "flip"}
ON_NETWORKS = [name for name in ALL if LOSSES[name].network]


@pytest.mark.parametrize(
    ("size", "absent"),
    [
        ((161, 161), set()),
        ((160, 4000), {"ms_ssim"}),
        ((4000, 160), {"ms_ssim"}),
        ((31, 31), {"ms_ssim"}),
        ((16, 30), {"ms_ssim", "lpips_alex"}),
        ((15, 40), {"ms_ssim", *ON_NETWORKS}),
        ((10, 10), {"ms_ssim", *ON_NETWORKS, "ssim", "ssim_y", "ssim_luma"}),
        ((8, 9), {"ms_ssim", *ON_NETWORKS, "ssim", "ssim_y", "ssim_luma", "multiscale_fd"}),
        ((1, 1), set(ALL) - ONE_PIXEL),
    ],
)
def test_computes_what_is_defined_at_a_size(size, absent):
    assert Plan(ALL).computed(*size) == tuple(name for name in ALL if name not in absent)


@pytest.mark.parametrize(
    ("layers", "side"), [(("relu1_2",), 1), (("relu3_1", "relu2_2"), 4), (LPIPS_LAYERS, 16), (("pool5",), 32)]
)
def test_chosen_layers_decide_the_smallest_side_of_the_losses_on_them(layers, side):
    plan = Plan(("vgg_mse", "lpips_vgg", "style"), vgg_layers=layers)
    assert [plan.smallest_side(name) for name in plan.losses] == [side, 16, side]


def test_a_cut_border_raises_the_smallest_side_and_is_in_every_formula():
    plan = Plan(("mae", "ssim"), protocol=Protocol(crop_border=4))
    assert [plan.smallest_side(name) for name in plan.losses] == [9, 19]
    assert plan.computed(18, 40) == ("mae",)
    assert [column.formula for column in plan.columns] == [
        f"{LOSSES[name].formula}; without 4 pixels at each border" for name in plan.losses
    ]


def test_the_objectives_losses_are_computed_once_and_come_last():
    plan = Plan(("ssim", "mae"), parse_objective("fd_l1 + mae + ssim"))
    assert plan.objective_losses == ("mae", "fd_l1", "ssim")
    assert plan.computed(20, 20) == ("ssim", "mae", "fd_l1")
    assert plan.computed(5, 5) == ("mae", "fd_l1")


@pytest.mark.parametrize(
    ("losses", "of_lpips", "of_keras"),
    [
        (("mae", "ssim"), (), ()),
        (("lpips_vgg",), LPIPS_LAYERS, ()),
        (("style",), ("pool3", "relu2_2"), ()),
        (("mae", "vgg_mse", "style"), ("pool3", "relu2_2"), ()),
        (("vgg_mse", "lpips_vgg"), ("pool3", *LPIPS_LAYERS), ()),
        (("vgg_mse_keras",), (), ("pool3", "relu2_2")),
        (("style_keras", "lpips_vgg"), LPIPS_LAYERS, ("pool3", "relu2_2")),
        (("style_keras", "style"), ("pool3", "relu2_2"), ("pool3", "relu2_2")),
    ],
)
def test_layers_and_networks_needed(losses, of_lpips, of_keras):
    plan = Plan(losses, vgg_layers=("relu2_2", "pool3"))
    layers = {"vgg16_lpips": of_lpips, "vgg16_keras": of_keras}
    assert {name: plan.layers(name, losses) for name in layers} == layers
    assert plan.networks == tuple(name for name in layers if layers[name])
    in_objective = dataclasses.replace(plan, losses=(), objective=parse_objective(" + ".join(losses)))
    assert in_objective.networks == plan.networks


@pytest.mark.parametrize(
    ("changed", "descends", "backend"),
    [
        ({}, False, "ncnn"),
        ({"precision": "auto"}, False, "ncnn"),
        ({"losses": ("style_keras", "mae")}, False, "ncnn"),
        ({"losses": ("lpips_alex",)}, False, "tensorflow"),
        ({"losses": ("lpips_alex", "dists")}, False, "ncnn"),
        ({"losses": ("dists",)}, False, "ncnn"),
        ({"losses": (), "objective": parse_objective("vgg_mse")}, False, "ncnn"),
        ({"losses": ("mae", "ssim")}, False, "tensorflow"),
        ({"precision": "bfloat16"}, False, "tensorflow"),
        ({"precision": "float16"}, False, "tensorflow"),
        ({"pixel_gradient": True, "objective": parse_objective("vgg_mse")}, False, "ncnn"),
        ({"pixel_gradient": True, "losses": ("dists",), "objective": parse_objective("mae")}, False, "tensorflow"),
        ({}, True, "ncnn"),
        ({"losses": (), "objective": parse_objective("style_keras + dists")}, True, "ncnn"),
        ({"losses": ("lpips_alex", "dists")}, True, "tensorflow"),
        ({"losses": ("mae",)}, True, "tensorflow"),
        ({"precision": "bfloat16"}, True, "tensorflow"),
        ({"protocol": Protocol(masked=True)}, True, "tensorflow"),
    ],
)
def test_ncnn_computes_in_float32(changed, descends, backend):
    plan = dataclasses.replace(Plan(("lpips_vgg",)), **changed)
    assert plan.with_backend(descends).backend == backend


def test_tensorflow_scores_where_ncnn_is_missing(monkeypatch):
    monkeypatch.setattr("transforms.losses.plan.find_spec", lambda name: None)
    assert Plan(("lpips_vgg",)).with_backend().backend == "tensorflow"


def test_a_network_whose_losses_do_not_know_ncnns_layout_stays_on_tensorflow(monkeypatch):
    monkeypatch.setitem(LOSSES, "style", dataclasses.replace(LOSSES["style"], planar_kernel=""))
    assert Plan(("lpips_vgg", "vgg_mse_keras", "style")).networks_on_ncnn == ("vgg16_keras",)
    assert Plan(("lpips_vgg",)).networks_on_ncnn == ("vgg16_lpips",)
