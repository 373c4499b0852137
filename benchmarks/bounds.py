"""Upper bounds for a run on this machine: the speed of the network alone and of decoding alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import tensorflow as tf

from benchmarks.pairs_of_size import pairs_of_size
from pipeline.presets import PRESETS
from pipeline.samples import SamplePair, repeat_pairs
from transforms.images.decode import DecodePolicy
from transforms.images.pairs import DecodedPair, decode_pair
from transforms.images.sandboxed import decode_pairs
from transforms.losses.catalog import LOSSES
from transforms.losses.devices import Device
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.plan import Plan
from transforms.scoring.batch import Batching, batch_by_shape
from transforms.worker.sandbox import Sandbox
from transforms.worker.threads import thread_count

SQUARE = ((256, 256),)
DISTINCT_PAIRS = 40
DEFAULT = PRESETS["default"].losses

Sizes = Sequence[tuple[int, int]]
Batches = Sequence[tuple[np.ndarray, np.ndarray]]


def sample_pairs(sizes: Sizes, count: int) -> Iterator[SamplePair]:
    """Pairs of the sizes in turn; a few distinct pairs repeat, because making one takes longer than scoring it."""
    each = DISTINCT_PAIRS // len(sizes)
    made = [list(pairs_of_size(height, width, each)) for height, width in sizes]
    distinct = list(chain.from_iterable(zip(*made, strict=True)))
    repeated = repeat_pairs(distinct, -(-count // len(distinct)))
    # Behind its end a PNG may hold anything: without it, repeats would share their pass through the network.
    return (
        replace(pair, target=pair.target + str(number).encode())
        for pair, number in zip(repeated, range(count), strict=False)
    )


def sample_batches(sizes: Sizes, count: int, batching: Batching) -> Batches:
    """Batches of decoded sample pairs: (generated, target), each uint8 [B, H, W, 3]."""
    decoded = (_decode((pair.generated, pair.target)) for pair in sample_pairs(sizes, count))
    groups = batch_by_shape(decoded, batching)
    return [(np.stack([p.generated for p in group]), np.stack([p.target for p in group])) for group in groups]


def network_speed(
    batches: Batches,
    precision: str,
    device: Device,
    seconds: float,
    backend: str = "tensorflow",
    loss: str = "lpips_vgg",
) -> float:
    """Pairs per second of a loss's network alone, up to the deepest layer it compares, on both images of each pair."""
    plan = Plan((loss,), precision=precision, backend=backend).with_weights()
    networks, name, layers = Networks(plan, device), LOSSES[loss].network, plan.compared_layers(loss)
    if networks.on_ncnn:
        features = partial(networks.on_ncnn[name].features, layers=layers)
        with ThreadPoolExecutor(thread_count()) as executor:
            # The last layer's size: keeping all features of a batch would measure memory.
            run = partial(_size, features, layers[-1])
            return batches_speed(batches, lambda *images: list(executor.map(run, chain(*images))), seconds)
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)] * 2
    with device.scope():

        @tf.function(input_signature=signature)
        def network(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            images = tf.cast(tf.concat([generated, target], 0), tf.float32) / 255
            # One number a pair, so that what is waited for is the end, and not the way of its features to the CPU.
            return tf.reduce_max(networks.features(images, (loss,))[name][layers[-1]], axis=(1, 2, 3))

        return batches_speed(batches, lambda *images: network(*images).numpy(), seconds)


def _size(features: Callable[[np.ndarray], dict[str, np.ndarray]], layer: str, image: np.ndarray) -> int:
    return features(image)[layer].size


def losses_speed(
    batches: Batches,
    precision: str,
    device: Device,
    seconds: float,
    backend: str = "tensorflow",
    losses: tuple[str, ...] = DEFAULT,
) -> float:
    """Pairs per second of an evaluator."""
    plan = Plan(losses, precision=precision, backend=backend).with_weights()
    return batches_speed(batches, Evaluator(plan, Networks(plan, device)), seconds)


def decoding_speed(sizes: Sizes, seconds: float) -> float:
    """Pairs per second of decoding alone, on all cores."""
    encoded = [(pair.generated, pair.target) for pair in sample_pairs(sizes, DISTINCT_PAIRS)]
    with ThreadPoolExecutor(thread_count()) as executor:
        return _rounds_per_second(lambda: list(executor.map(_decode, encoded)), seconds) * DISTINCT_PAIRS


def sandbox_speed(sizes: Sizes, seconds: float) -> float:
    """Pairs per second of decoding in a sandbox, four pairs at a time, as scoring does."""
    encoded = [(pair.generated, pair.target) for pair in sample_pairs(sizes, DISTINCT_PAIRS)]
    tasks = [encoded[start : start + 4] for start in range(0, len(encoded), 4)]
    decode = partial(decode_pairs, policy=DecodePolicy(), sandbox=Sandbox())
    with ThreadPoolExecutor(thread_count()) as executor:
        return _rounds_per_second(lambda: list(executor.map(decode, tasks)), seconds) * DISTINCT_PAIRS


def batches_speed(batches: Batches, function: Callable[[np.ndarray, np.ndarray], object], seconds: float) -> float:
    """Pairs per second of a function of batches."""

    def work() -> None:
        for generated, target in batches:
            function(generated, target)

    return _rounds_per_second(work, seconds) * sum(len(generated) for generated, _ in batches)


def _rounds_per_second(work: Callable[[], object], seconds: float) -> float:
    """Measure for about `seconds`, after a round that traces the graphs and one that tells how many rounds fit."""
    work()
    once = _seconds(work, 1)
    if not seconds:
        return 1 / once
    rounds = max(1, round(seconds / once))
    return rounds / _seconds(work, rounds)


def _seconds(work: Callable[[], object], rounds: int) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    return time.perf_counter() - start


def _decode(encoded: tuple[bytes, bytes]) -> DecodedPair:
    return decode_pair(*encoded, DecodePolicy())
