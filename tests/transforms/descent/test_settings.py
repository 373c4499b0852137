"""How to descend: what is refused, and in which words."""

import pytest

from transforms.descent.settings import DEFAULT_OBJECTIVE, METHODS, Descent
from transforms.losses.objective import check_differentiable, parse_objective


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "newton"),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", 1.5),
        ("learning_rate", float("nan")),
        ("max_steps", 0),
        ("target_loss", float("inf")),
        ("target_loss", float("nan")),
        ("target_ratio", 0.0),
        ("target_ratio", 1.01),
        ("patience", 0),
        ("rtol", -1e-9),
        ("rtol", 1.0),
        ("max_change", 0.003),
        ("max_change", 1.1),
        ("trace_every", -1),
    ],
)
def test_values_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=rf"^{field} (is )?'?{value}.*[Tt](ry|ake) "):
        Descent(**{field: value})


@pytest.mark.parametrize("method", METHODS)
def test_the_ends_of_the_ranges_are_allowed(method):
    Descent(method, 1.0, 1, -1.0, 1.0, 1, 0.0, 1.0, 1)
    Descent(method, max_change=1 / 255)


@pytest.mark.parametrize(("change", "levels"), [(None, 255), (1.0, 255), (1 / 255, 1), (0.0117, 2), (3 / 255, 3)])
def test_the_budget_is_whole_levels(change, levels):
    assert Descent(max_change=change).max_levels == levels


def test_the_default_objective_can_be_minimized():
    check_differentiable(parse_objective(DEFAULT_OBJECTIVE))
