"""Score images held in memory or in files: the numbers of a run without the run."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from pairloss.images import ImagePair, Images, read_pairs
from transforms.images.decode import DecodePolicy
from transforms.losses.catalog import get_losses
from transforms.losses.objective import parse_objective
from transforms.losses.plan import PRECISIONS, EvaluationError, Plan
from transforms.losses.protocol import Protocol
from transforms.scoring.batch import batch_by_shape, batching_for
from transforms.scoring.score import evaluate_group, load_evaluator

if TYPE_CHECKING:
    from transforms.losses.evaluate import Evaluator


def score(
    generated: Images,
    target: Images,
    losses: str | Sequence[str] = ("lpips_vgg", "ssim"),
    *,
    mask: Images | None = None,
    objective: str = "",
    precision: str = "float32",
    crop_border: int = 0,
    gt_mean: bool = False,
    policy: DecodePolicy = DecodePolicy(),
) -> dict[str, np.ndarray]:
    """Compute losses of pairs of images.

    8-bit and 16-bit images, in arrays or files, score as in a run of the pipeline, bit for bit on one machine. Floats
    are scored as they are, never rounded to levels, but as float32.
    The networks stay loaded for further calls with the same losses, objective and precision. TensorFlow computes
    float32 as float32 from the first call on: TensorFloat-32 is off for the whole process.

    Args:
        generated: one image or many: an array [H, W, 3] or [B, H, W, 3], a path, or a list of arrays [H, W, 3] and
            paths, of any sizes. RGB: uint8 or uint16 of full range, or floats in [0, 1].
        target: the image that each generated one should look like; its shape and dtype are the same.
        losses: names from `LOSSES`.
        mask: which pixels of each pair count: an array [H, W] or [B, H, W], a path, or a list of arrays [H, W] and
            paths, of the size of the target. Those of an array count that are not 0; those of a file that are brighter
            than the middle of its range, as in a run.
        objective: weighted sum of losses, for a column `objective`, such as "lpips_vgg + 0.1*fd_l1".
        precision: of the networks: "float32", "tensorfloat32" (on GPUs), "bfloat16", "float16" or "auto".
        crop_border: pixels to cut from each side of both images before any loss.
        gt_mean: whether to scale each generated image to the mean gray of its target, after the cut.
        policy: what to decode from files, and what to do where the two files of a pair differ in size.

    Returns:
        float32 [B] by the name of the loss, B = 1 for one pair; with masks also `mask_coverage`, the share of the
        pixels that count. NaN: the loss is not defined for an image so small (`LOSSES[name].min_side`, and twice the
        border), knows no mask (`LOSSES[name].maskable`), or compares nothing within this one.

    Raises:
        ValueError: a loss is unknown, `crop_border` is negative, the images do not match or are not images, no pixel
            lies in a mask, or a file cannot be decoded.
        OSError: a file cannot be read.
        WeightsError: the weights of a network cannot be fetched.
        EvaluationError: the losses of a pair could not be computed, usually for lack of memory.

    Example:
        >>> import numpy as np
        >>> from pairloss import score
        >>> target = np.linspace(0, 1, 2 * 32 * 32 * 3).reshape(2, 32, 32, 3)
        >>> columns = score(target**1.1, target, losses=["lpips_vgg", "ssim", "mae"])
        >>> {name: values.shape for name, values in columns.items()}
        {'lpips_vgg': (2,), 'ssim': (2,), 'mae': (2,)}
        >>> score(target[0, :8, :8], target[0, :8, :8], losses=["mae", "ssim"])
        {'mae': array([0.], dtype=float32), 'ssim': array([nan], dtype=float32)}
        >>> columns = score(target**1.1, target, losses="mae", mask=target[..., 0] > 0.25)
        >>> columns["mask_coverage"]
        array([0.5, 1. ], dtype=float32)
    """
    names = (losses,) if isinstance(losses, str) else tuple(losses)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"losses has {wrong[0]!r}, which is not text; give names from LOSSES")
    protocol = Protocol(crop_border, gt_mean, masked=mask is not None)
    evaluator = _evaluator(tuple(loss.name for loss in get_losses(names)), objective, precision, protocol)
    count, pairs = read_pairs(generated, target, policy, mask)
    columns = {column.name: np.full(count, np.nan, np.float32) for column in evaluator.plan.columns}
    for group in batch_by_shape(
        map(partial(_check_mask, protocol), pairs), batching_for(evaluator.device.memory_bytes)
    ):
        for part, values in evaluate_group(evaluator, group):
            if isinstance(values, EvaluationError):
                raise values
            for name, column in values.items():
                columns[name][[pair.row for pair in part]] = column
    return columns


def _check_mask(protocol: Protocol, pair: ImagePair) -> ImagePair:
    if pair.mask is not None and not protocol.inside(pair.mask[np.newaxis]).any():
        raise ValueError(
            f"pair {pair.row}: no pixel within the border lies in its mask; leave the pair out, or, if a file holds 0 "
            "and 1, store 0 and 255"
        )
    return pair


# Loading the networks takes a second, tracing their graphs several.
@lru_cache(maxsize=4)
def _evaluator(losses: tuple[str, ...], objective: str, precision: str, protocol: Protocol) -> "Evaluator":
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")
    parsed = parse_objective(objective) if objective else None
    plan = Plan(losses, parsed, precision=precision, protocol=protocol)
    if not plan.columns:
        raise ValueError("losses names no loss; give one of LOSSES, or an objective")
    return load_evaluator(plan.with_weights().with_backend())
