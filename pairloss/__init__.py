"""PairLoss for notebooks and training scripts: score pairs of images, optimize them, and train with the same losses.

Importing this package imports none of Beam, TensorFlow and pyarrow: each name below loads what it needs at first use.
The command `pairloss` (or `python -m pairloss`) scores whole datasets.

Example:
    >>> import numpy as np
    >>> import pairloss
    >>> target = np.zeros((32, 32, 3), np.uint8)
    >>> pairloss.score(target + np.uint8(51), target, losses=["mae"])
    {'mae': array([0.2], dtype=float32)}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline import __version__

# `as` marks a name as public for type checkers.
if TYPE_CHECKING:
    from pairloss.keras_loss import PairLoss as PairLoss
    from pairloss.optimizing import optimize as optimize
    from pairloss.scoring import score as score
    from transforms.descent.settings import Descent as Descent
    from transforms.images.decode import DecodePolicy as DecodePolicy
    from transforms.images.decode import decode_image as decode_image
    from transforms.losses.catalog import LOSSES as LOSSES
    from transforms.losses.objective import parse_objective as parse_objective
    from transforms.losses.plan import Plan as Plan
    from transforms.scoring.score import load_evaluator as load_evaluator

_MODULES = {
    "LOSSES": "transforms.losses.catalog",
    "DecodePolicy": "transforms.images.decode",
    "Descent": "transforms.descent.settings",
    "PairLoss": "pairloss.keras_loss",
    "Plan": "transforms.losses.plan",
    "decode_image": "transforms.images.decode",
    "load_evaluator": "transforms.scoring.score",
    "optimize": "pairloss.optimizing",
    "parse_objective": "transforms.losses.objective",
    "score": "pairloss.scoring",
}
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pairloss' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
