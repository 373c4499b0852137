"""The objective: a weighted sum of losses, parsed from `lpips_vgg + 0.1*fd_l1`. Free of TensorFlow."""

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.losses.catalog import LOSSES, Loss, unknown_loss_message

MAX_CHARACTERS = 1000
MAX_QUOTED = 80
# The largest float32.
_MOST = (2 - 2**-23) * 2.0**127
GRAMMAR = "an objective is a weighted sum of losses, such as 'lpips_vgg + 0.1*fd_l1' or '1 - ssim'"


@dataclass(frozen=True)
class Objective:
    """constant + sum of weight × loss. Two objectives are equal when they compute the same.

    Attributes:
        text: as the user typed it.
        terms: (weight, name of the loss), in the order of the catalog; every weight differs from 0.
        constant: added to the sum.
    """

    text: str = field(compare=False)
    terms: tuple[tuple[float, str], ...]
    constant: float = 0.0

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses to compute."""
        return tuple(name for _, name in self.terms)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The objective of every pair: [B], a tensor or an array as the values are, and of their type.

        Args:
            values: [B] for every loss of `terms`, perhaps for others, too.
        """
        total = sum(weight * values[name] for weight, name in self.terms)
        return total + self.constant

    def __str__(self) -> str:
        """The canonical text: equal objectives print alike, and parse to themselves."""
        constant = [(self.constant, "")] if self.constant else []
        text = "".join(_signed(number, name) for number, name in (*constant, *self.terms))
        return text.removeprefix(" + ") if text.startswith(" + ") else f"-{text.removeprefix(' - ')}"


def parse_objective(text: str) -> Objective:
    """Parses sums, differences and multiples of losses: names, numbers, `+`, `-`, `*` and parentheses.

    Raises:
        ValueError: the text is empty, too long, malformed or not linear in the losses, names an unknown loss
            or none, or has a weight that is not finite. The message quotes it and says what is allowed.

    Example:
        >>> parse_objective("2*(1 - ssim) + mae").terms
        ((1.0, 'mae'), (-2.0, 'ssim'))
    """
    quoted = repr(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"objective {quoted} is longer than {MAX_CHARACTERS} characters: {GRAMMAR}")
    try:
        weights = _linear(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"malformed objective {quoted}: {GRAMMAR}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"objective {quoted} is nested too deeply: {GRAMMAR}") from error
    except ValueError as error:
        raise ValueError(f"objective {quoted}: {error}") from error
    if not all(abs(weight) <= _MOST for weight in weights.values()):
        raise ValueError(f"objective {quoted}: a weight is not finite as a float32, in which losses are computed")
    terms = tuple((weights[name], name) for name in LOSSES if weights.get(name))
    if not terms:
        raise ValueError(f"objective {quoted} weighs no loss: {GRAMMAR}")
    return Objective(text, terms, weights.get(_CONSTANT, 0.0))


def check_differentiable(objective: Objective) -> None:
    """Checks that the objective can be minimized by its gradient.

    Raises:
        ValueError: a loss has no usable gradient; the message names it, and others that serve in its place.
    """
    for name in objective.losses:
        loss = LOSSES[name]
        if not loss.differentiable:
            same_kind = [n for n, other in LOSSES.items() if other.differentiable and _module(other) == _module(loss)]
            instead = f"; take {' or '.join(same_kind)} instead" if same_kind else ""
            raise ValueError(f"objective '{objective}': {name} has no usable gradient{instead}")


def _module(loss: Loss) -> str:
    return loss.function.partition(":")[0]


# A linear form is a dict: the weight of each loss, and the constant under this name, which no loss can have.
_CONSTANT = ""


def _linear(node: ast.expr) -> dict[str, float]:
    """The linear form of an expression.

    Raises:
        ValueError: the expression is not linear in known losses.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return {_CONSTANT: _as_float(value)}
        case ast.Name(id=name):
            if name not in LOSSES:
                raise ValueError(unknown_loss_message(name))
            return {name: 1.0}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _scaled(_linear(operand), -1.0)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _added(_linear(left), _linear(right))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _added(_linear(left), _scaled(_linear(right), -1.0))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _multiplied(_linear(left), _linear(right))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed: {GRAMMAR}")


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _scaled(form: dict[str, float], factor: float) -> dict[str, float]:
    return {name: factor * weight for name, weight in form.items()}


def _added(left: dict[str, float], right: dict[str, float]) -> dict[str, float]:
    return left | {name: left.get(name, 0.0) + weight for name, weight in right.items()}


def _multiplied(left: dict[str, float], right: dict[str, float]) -> dict[str, float]:
    for number, form in ((left, right), (right, left)):
        if set(number) == {_CONSTANT}:
            return _scaled(form, number[_CONSTANT])
    raise ValueError(f"a product of losses is not allowed: {GRAMMAR}")


def _signed(number: float, name: str) -> str:
    """A term as it stands in a sum, such as ` + 0.1*mae`, ` - mae` or ` + 2`."""
    size = repr(abs(number)).removesuffix(".0")
    if name:
        size = name if abs(number) == 1 else f"{size}*{name}"
    return f" {'-' if number < 0 else '+'} {size}"
