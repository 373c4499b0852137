"""The objective: its grammar, its text, and the sums that are refused."""

import numpy as np
import pytest
import tensorflow as tf

from transforms.losses.objective import Objective, check_differentiable, parse_objective


@pytest.mark.parametrize(
    ("text", "terms", "constant", "canonical"),
    [
        ("mae", [(1, "mae")], 0, "mae"),
        ("lpips_vgg + 0.1*fd_l1", [(0.1, "fd_l1"), (1, "lpips_vgg")], 0, "0.1*fd_l1 + lpips_vgg"),
        ("1 - ssim", [(-1, "ssim")], 1, "1 - ssim"),
        ("-ssim + 1", [(-1, "ssim")], 1, "1 - ssim"),
        ("-ssim", [(-1, "ssim")], 0, "-ssim"),
        ("-2 - 0.5*mae", [(-0.5, "mae")], -2, "-2 - 0.5*mae"),
        ("mae*2*3 ", [(6, "mae")], 0, "6*mae"),
        ("mae + mse + mae", [(2, "mae"), (1, "mse")], 0, "2*mae + mse"),
        ("-(mae - 2*(mse + 1))", [(-1, "mae"), (2, "mse")], 2, "2 - mae + 2*mse"),
        ("mse - mse + 1e-5*mae", [(1e-5, "mae")], 0, "1e-05*mae"),
    ],
)
def test_parses_what_is_linear(text, terms, constant, canonical):
    objective = parse_objective(text)
    assert objective == Objective("", tuple(terms), constant)
    assert objective.text == text
    assert objective.losses == tuple(name for _, name in terms)
    assert str(objective) == canonical
    assert parse_objective(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed objective '': an objective is a weighted sum"),
        ("mae +", "malformed objective 'mae [+]': an objective is a weighted sum"),
        ("mae; mse", "malformed"),
        ("mae\0", "objective 'mae"),
        ("lpips", "unknown loss 'lpips'. Did you mean 'lpips_vgg'"),
        ("ssim*mae", "'ssim[*]mae': a product of losses"),
        ("mae/2", "'mae / 2' is not allowed: an objective is a weighted sum"),
        ("mae**2", "not allowed"),
        ("mae(1)", "not allowed"),
        ("__import__('os')", "not allowed"),
        ("True*mae", "'True' is not allowed"),
        ("1j*mae", "'1j' is not allowed"),
        ("'mae'", "not allowed"),
        ("nan*mae", "unknown loss 'nan'"),
        ("1e999*mae", "not finite as a float32"),
        ("1e999*mae - 1e999*mae", "not finite as a float32"),
        ("1e300*1e300*mae", "not finite as a float32"),
        (f"{'9' * 400}*mae", "not finite as a float32"),
        ("1e39*mae", "not finite as a float32"),
        ("-3.5e38 + mae", "not finite as a float32"),
        ("mae + 1e999", "not finite as a float32"),
        ("2", "weighs no loss"),
        ("0*mae + 3", "weighs no loss"),
        ("mae - mae", "weighs no loss"),
        ("mae + " * 1000 + "mae", "longer than 1000 characters"),
        ("(" * 400 + "mae" + ")" * 400, "objective '[(]{80}[.]{3}'"),
    ],
)
def test_refuses_the_rest_in_one_short_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_objective(text)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["-" * 900 + "mae", "1+" * 450 + "mae", "1*(" * 150 + "mae" + ")" * 150])
def test_deep_nesting_is_parsed_or_refused_but_never_crashes(text):
    try:
        assert parse_objective(text).losses == ("mae",)
    except ValueError as error:
        assert "nested too deeply" in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", [np.array, tf.constant])
def test_evaluates_arrays_and_tensors_alike(kind):
    values = {
        "mae": kind(np.float32([0.5, 0.25])),
        "ssim": kind(np.float32([1.0, 0.5])),
        "mse": kind(np.float32([9, 9])),
    }
    result = parse_objective("1 - ssim + 2*mae").evaluate(values)
    assert type(result) is type(values["mae"])
    assert result.dtype == values["mae"].dtype
    np.testing.assert_array_equal(result, [1.0, 1.0])


def test_a_differentiable_objective_passes():
    check_differentiable(parse_objective("lpips_vgg + 0.1*fd_l1 + 1 - ssim"))


@pytest.mark.parametrize(("name", "other"), [("psnr", "mse"), ("gmsd", "ssim"), ("ciede2000", "")])
def test_a_loss_without_a_gradient_is_named_with_others_in_its_place(name, other):
    with pytest.raises(ValueError, match=rf"'mae - 2[*]{name}': {name} has no usable gradient.*{other}"):
        check_differentiable(parse_objective(f"mae - 2*{name}"))
