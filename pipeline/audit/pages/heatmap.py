"""Where in a picture an objective wants a change, and where a loss finds two pictures different: a number a pixel."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from transforms.images.pairs import DecodedPair
from transforms.losses.catalog import LOSSES
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import WeightsFile
from transforms.losses.objective import Objective, parse_objective
from transforms.losses.plan import Plan
from transforms.losses.protocol import Protocol
from transforms.worker.tensorflow_import import import_tensorflow

# A network's gradient takes more than a kilobyte of memory per pixel.
MAX_PIXELS = 2**20


def objective_of_run(identity: Mapping[str, Any]) -> Objective | None:
    """The run's objective or, if its gradient shows nothing, the first loss whose gradient does.

    Args:
        identity: of run.json.

    Returns:
        An objective that is better if it is lower; None if the run has none.
    """
    signs = {"lower": "", "higher": "-"}
    with _known_settings():
        directions = {name: LOSSES[name].direction for name in identity["losses"]}
        texts = [identity["objective"]] if identity["objective"] else []
        texts += [f"{signs[way]}{name}" for name, way in directions.items() if way in signs]
        masked = Protocol.of_run(identity).masked
        objectives = list(map(parse_objective, texts))
    for objective in objectives:
        rows = [LOSSES[name] for name in objective.losses]
        usable = all(loss.differentiable and (loss.maskable or not masked) for loss in rows)
        if usable and not all(loss.gradient_is_flat for loss in rows):
            return objective
    return None


class HeatMap:
    """Differentiates an objective to the pixels of a generated image.

    Args:
        objective: what to differentiate.
        identity: of run.json: the network of the run and the hashes of its weights.

    Raises:
        WeightsError: this machine's cache lacks the network's weights, or has different ones. Nothing is downloaded.
    """

    def __init__(self, objective: Objective, identity: Mapping[str, Any]):
        import_tensorflow()
        from transforms.losses.objective_function import ObjectiveFunction

        self.plan = _plan((), objective, identity)
        self._function = ObjectiveFunction(self.plan)

    def __call__(self, pair: DecodedPair) -> np.ndarray | None:
        """The gradient's length over the channels of each pixel.

        Returns:
            float32 [H, W], at least 0; None if the objective is not defined at this size, or if the picture has more
            than `MAX_PIXELS` pixels.
        """
        from transforms.losses.pair import as_images

        height, width = pair.generated.shape[:2]
        if min(height, width) < self._function.smallest_side or height * width > MAX_PIXELS:
            return None
        generated, target = (as_images(image[None]) for image in (pair.generated, pair.target))
        mask = None if pair.mask is None else pair.mask[np.newaxis]
        _, gradient, _ = self._function.value_and_gradient(generated, self._function.references(target, mask))
        length = np.linalg.norm(gradient[0].numpy(), axis=-1)
        return np.nan_to_num(length, posinf=0.0)


class LossMaps:
    """Shows where losses find the two images of a pair different.

    Args:
        losses: names of losses that have a `map`.
        identity: of run.json: the networks of the run and the hashes of their weights.

    Raises:
        WeightsError: this machine's cache lacks a network's weights, or has different ones. Nothing is downloaded.
    """

    def __init__(self, losses: Collection[str], identity: Mapping[str, Any]):
        import_tensorflow()
        from transforms.losses.networks.loaded import Networks

        self.plan = _plan(tuple(losses), None, identity)
        self._networks = Networks(self.plan)

    def __call__(self, loss: str, pair: DecodedPair) -> np.ndarray | None:
        """The map of a loss, as the run computed it: of its protocol, and 0 outside of a mask.

        Returns:
            float32 [H, W], at least 0; None if the loss is not defined at this size, or if the picture has more than
            `MAX_PIXELS` pixels.
        """
        from transforms.losses.mean_matching import match_mean
        from transforms.losses.pair import as_images, loss_map

        height, width = pair.generated.shape[:2]
        if min(height, width) < self.plan.smallest_side(loss) or height * width > MAX_PIXELS:
            return None
        protocol = self.plan.protocol
        generated, target = (protocol.inside(as_images(image[None])) for image in (pair.generated, pair.target))
        if protocol.gt_mean:
            mask = None if pair.mask is None else protocol.inside(pair.mask[None])
            generated = match_mean(generated, target, mask)
        found = loss_map(self._networks, loss, generated, target)[0].numpy().astype(np.float32)
        above, before = (height - found.shape[0]) // 2, (width - found.shape[1]) // 2
        whole = np.zeros((height, width), np.float32)
        whole[above : above + found.shape[0], before : before + found.shape[1]] = np.maximum(found, 0)
        return whole if pair.mask is None else whole * pair.mask


def _plan(losses: tuple[str, ...], objective: Objective | None, identity: Mapping[str, Any]) -> Plan:
    """A plan with the run's layers and protocol, on the weights in this machine's cache."""
    with _known_settings():
        return Plan(
            losses,
            objective,
            precision="auto",
            vgg_layers=tuple(identity["vgg_layers"]),
            protocol=Protocol.of_run(identity),
            weights={
                name: WeightsFile(str(resolve_name(NETWORKS[name].cached)()), sha256)
                for name, sha256 in identity["weights"].items()
            },
        )


@contextmanager
def _known_settings() -> Iterator[None]:
    """Turn the error over settings that this version does not know into a `UsageError`."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"the run's run.json has settings that this version does not know: {error}; score again with this version"
        ) from error
