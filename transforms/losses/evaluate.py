"""Compute a plan's columns for batches of pairs, with the fastest form of every loss that this machine has.

TensorFlow is imported if a loss needs it: kernels and ncnn compute the common ones on CPUs.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np

from transforms.losses.catalog import LOSSES
from transforms.losses.devices import MOST_PIXELS_ON_GPU
from transforms.losses.fused.on_maps import values_of_pair
from transforms.losses.networks.loaded import Networks
from transforms.losses.plan import MASK_COVERAGE, EvaluationError, OutOfMemoryError, Plan
from transforms.losses.planar_evaluator import PlanarEvaluator
from transforms.losses.shared_targets import shared_targets
from transforms.worker.stopwatch import lap
from transforms.worker.tensorflow_import import import_tensorflow
from transforms.worker.threads import thread_count

if TYPE_CHECKING:
    from transforms.losses.graph import GraphEvaluator

# Bytes that a kernel may take for a large picture: as many as a network's tiles take besides what both need.
KERNEL_BYTES = 5 * 2**28


class Evaluator:
    """Computes the columns of a plan.

    One object serves every image size; calls from several threads are safe.

    Args:
        plan: what to compute.
        networks: of this plan, if they are loaded already.

    Raises:
        BackendError: the plan's backend is missing here.
        WeightsError: a weights file is missing or damaged, or its hash differs from the plan's.

    Attributes:
        device: computes what TensorFlow computes.
        precision: of the networks' features.
        backend: what computes the networks' features: `ncnn` or `tensorflow`.
    """

    def __init__(self, plan: Plan, networks: Networks | None = None):
        self.plan = plan
        self._networks = networks or Networks(plan)
        self.device = self._networks.device
        self.precision = self._networks.precision
        self.backend = self._networks.backend
        self._executor = ThreadPoolExecutor(thread_count(), "fused")
        self._planar = PlanarEvaluator(plan, self._networks, self._executor)
        # On a GPU, the most pixels of a batch.
        self._most_pixels = MOST_PIXELS_ON_GPU

    def __call__(
        self, generated: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Compute the columns that are defined for images of this size.

        Args:
            generated: [B, H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
            target: the same shape and type.
            mask: if the plan's protocol is masked: the pixels that count, bool [B, H, W].

        Returns:
            float32 [B] per column of the plan; columns not defined at this size are absent. NaN: the loss compares no
            position within the mask.

        Raises:
            EvaluationError: the images differ in shape or type, a mask is missing or has no part in the plan, or
                TensorFlow fails, usually for lack of memory.
        """
        if (generated.shape, generated.dtype) != (target.shape, target.dtype):
            # TensorFlow would broadcast one image against many, and one column against a whole image.
            sides = (f"{images.dtype}{list(images.shape)}" for images in (generated, target))
            raise EvaluationError("generated and target images differ: {} and {}".format(*sides))
        if (mask is not None) != self.plan.protocol.masked or (mask is not None and mask.shape != generated.shape[:3]):
            found = "no mask" if mask is None else f"a mask {list(mask.shape)}"
            raise EvaluationError(f"{found} for images {list(generated.shape)}; see Protocol.masked")
        height, width = generated.shape[1:3]
        losses = self.plan.computed(height, width)
        coverage = {} if mask is None else _coverage(self.plan.protocol.inside(mask))
        if not losses:
            return coverage
        with_gradient = self.plan.pixel_gradient and self.plan.differentiated(height, width)
        try:
            # The kernels want the pixels of an image in one piece.
            given = (generated, target) if mask is None else (generated, target, mask)
            images = [np.ascontiguousarray(self.plan.protocol.inside(part)) for part in given]
            with self.device.turn(), lap("network" if any(LOSSES[name].network for name in losses) else "losses"):
                if self.plan.protocol.gt_mean and not with_gradient:
                    images[:2] = self._graph.match_means(*images)
                on_ncnn = tuple(name for name in losses if LOSSES[name].network in self._networks.on_ncnn)
                others = tuple(name for name in losses if name not in on_ncnn)
                from_ncnn = self._planar(on_ncnn, *images[:2]) if on_ncnn else iter([])
                columns = self._others(others, with_gradient, *images) if others else {}
                columns |= dict(zip(on_ncnn, np.array(list(from_ncnn), np.float32).T, strict=True))
        except MemoryError as error:
            raise EvaluationError(f"memory ran out: {error}") from error
        if self.plan.objective and "objective" not in columns and set(self.plan.objective_losses) <= columns.keys():
            columns["objective"] = np.asarray(self.plan.objective.evaluate(columns), np.float32)
        columns |= coverage
        return {column.name: columns[column.name] for column in self.plan.columns if column.name in columns}

    @cached_property
    def _graph(self) -> "GraphEvaluator":
        import_tensorflow()
        from transforms.losses.graph import GraphEvaluator

        return GraphEvaluator(self.plan, self._networks, self._executor)

    def _others(self, losses: tuple[str, ...], with_gradient: bool, *images: np.ndarray) -> dict[str, np.ndarray]:
        """The losses that no network on ncnn is needed for, and perhaps the objective with its gradient."""
        pairs, height, width, _ = images[0].shape
        if not self.plan.fits_whole(height, width):
            return self._large(losses, *images)
        if self.device.on_gpu:
            return self._whole_on_gpu(losses, with_gradient, *images)
        self._networks.check_memory(losses, pairs * height * width, with_gradient)
        return self._whole(losses, with_gradient, *images)

    def _large(
        self, losses: tuple[str, ...], generated: np.ndarray, target: np.ndarray, *mask: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The losses of large pictures: by kernels where these take little memory, and by TensorFlow in tiles."""
        most = KERNEL_BYTES // generated[0, ..., 0].size
        in_form = mask or self.device.on_gpu
        memory = {} if in_form else {name: LOSSES[name].kernel_memory for name in losses}
        by_kernel = [name for name, bytes in memory.items() if bytes is not None and bytes <= most]
        columns = {}
        for name in by_kernel:
            # One after the other.
            values = map(resolve_name(LOSSES[name].kernel), generated, target)
            columns[name] = np.fromiter(values, np.float32)
        in_tiles = tuple(name for name in losses if name not in by_kernel)
        return columns | (self._graph.in_tiles(in_tiles, generated, target, *mask) if in_tiles else {})

    def _whole_on_gpu(self, losses: tuple[str, ...], with_gradient: bool, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate batches of `Device.batch` pairs, the last one repeated, as large as have been seen to fit."""
        pixels, given = images[0][0, ..., 0].size, len(images[0])
        parts: list[dict[str, np.ndarray]] = []
        done = 0
        while done < given:
            fitting = 1 << ((self._most_pixels // pixels or 1).bit_length() - 1)
            pairs = min(given - done, fitting)
            rows = np.minimum(np.arange(done, done + self.device.batch(pairs)), done + pairs - 1)
            try:
                columns = self._whole(losses, with_gradient, *(part[rows] for part in images))
            except OutOfMemoryError:
                if len(rows) == 1:
                    raise
                # For all batches to come: TensorFlow waits ten seconds for memory before it gives up.
                self._most_pixels = len(rows) // 2 * pixels
            else:
                parts.append({name: values[:pairs] for name, values in columns.items()})
                done += pairs
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _whole(
        self,
        losses: tuple[str, ...],
        with_gradient: bool,
        generated: np.ndarray,
        target: np.ndarray,
        *mask: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The losses of pictures in one piece, and perhaps the objective with its gradient."""
        # The gradient, a mask and a GPU need TensorFlow's form; on a CPU the kernels run while the network does.
        in_form = with_gradient or mask or self.device.on_gpu
        fusible = () if in_form else [name for name in losses if LOSSES[name].kernel]
        on_pixels = tuple(name for name in fusible if not LOSSES[name].network)
        # NumPy and numba know bfloat16 only by its bits, and float16 hardly.
        on_features = tuple(name for name in fusible if LOSSES[name].network and self.precision != "float16")
        kernels = [resolve_name(LOSSES[name].kernel) for name in on_pixels]
        fused_values = self._executor.map(partial(values_of_pair, kernels), generated, target)
        # Candidates of one target share its pass through the network. A GPU gets few sizes of batch instead.
        with_networks = any(LOSSES[name].network for name in losses)
        sharing = with_networks and not (with_gradient or self.device.on_gpu)
        shared = shared_targets(target) if sharing else None
        in_graph = tuple(name for name in losses if name not in (*on_pixels, *on_features))
        columns: dict[str, np.ndarray] = {}
        if in_graph or on_features:
            columns = self._graph(in_graph, on_features, with_gradient, shared, generated, target, *mask)
        columns |= dict(zip(on_pixels, np.array(list(fused_values), np.float32).T, strict=True))
        return columns


def _coverage(mask: np.ndarray) -> dict[str, np.ndarray]:
    return {MASK_COVERAGE.name: mask.mean(axis=(1, 2)).astype(np.float32)} if mask.size else {}
