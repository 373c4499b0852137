import subprocess
import sys

import pytest

from transforms.losses.catalog import LOSSES, describe_losses, get_losses, loss_function

NAMES = [
    "mae",
    "mse",
    "psnr",
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
    "ms_ssim",
    "lpips_vgg",
    "vgg_mse",
    "style",
]
NETWORK = ["lpips_vgg", "vgg_mse", "style"]


def test_the_losses_are_complete_and_in_order():
    assert list(LOSSES) == NAMES
    assert [name for name, loss in LOSSES.items() if loss.network] == NETWORK
    assert [name for name, loss in LOSSES.items() if not loss.differentiable] == ["psnr", "gmsd"]


def test_names_and_objectives_need_no_tensorflow():
    code = "import sys, transforms.losses.objective; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NETWORK])
def test_every_loss_on_pixels_has_its_function(name):
    function = loss_function(LOSSES[name])
    assert function.__name__ == name
    assert function.__module__ == f"transforms.losses.{LOSSES[name].module}"


@pytest.mark.parametrize("name", NETWORK)
def test_a_loss_on_features_is_no_function_of_pixels(name):
    with pytest.raises(ValueError, match=name):
        loss_function(LOSSES[name])


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
