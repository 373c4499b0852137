"""Decode the pairs of a chunk ahead of the network, in threads that wait for a child each."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from transforms.images.decode import DecodedPair, DecodeError, DecodePolicy
from transforms.images.sandboxed import EncodedPair, decode_pairs
from transforms.scoring.batch import Batching
from transforms.worker.sandbox import Sandbox
from transforms.worker.stopwatch import add_beside, lap
from transforms.worker.threads import thread_count

# How many batches of decoded pairs may wait for the network: two keep it busy, and more would only take memory.
_BATCHES_AHEAD = 2

# Larger pictures are not decoded ahead, but when it is their turn: several at once might fill the memory.
_PIXELS_AHEAD = 2**23

# Pairs that a child decodes at a time: fewer would leave it waiting for the next ones.
_TASK_PAIRS = 4


def decode_timed(
    encoded: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox
) -> tuple[list[DecodedPair | DecodeError], float]:
    """As `decode_pairs`, and the seconds that it took."""
    begun = time.perf_counter()
    return decode_pairs(encoded, policy, sandbox), time.perf_counter() - begun


def decode_ahead(
    encoded: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox, batching: Batching
) -> Iterator[tuple[DecodedPair | DecodeError, float]]:
    """Decode pairs in this order, in threads that wait for a child each; what waits for the network is bounded.

    Yields:
        per pair, what it decodes to, and its share of the seconds in which it was decoded together with others.
    """
    ahead = replace(policy, max_image_pixels=min(policy.max_image_pixels, _PIXELS_AHEAD))
    threads = thread_count()
    pending: deque[Future[tuple[list[DecodedPair | DecodeError], float]]] = deque()
    submitted = taken = largest = 0
    executor = ThreadPoolExecutor(threads, "decode")
    try:
        while taken < len(encoded):
            # Until one has come out, pairs are taken to be as large as they may be; after that, as large as the
            # largest so far.
            fitting = batching.pending_bytes // (largest or 6 * ahead.max_image_pixels)
            most = max(1, min(_BATCHES_AHEAD * batching.pairs, fitting))
            task = min(_TASK_PAIRS, max(1, most // threads), len(encoded) - submitted)
            while 0 < task < min(most, len(encoded) - submitted) and _same_target(encoded, submitted + task):
                # Candidates go together, so that their target is decoded once.
                task += 1
            if task and submitted + task - taken <= most:
                together = encoded[submitted : submitted + task]
                pending.append(executor.submit(decode_timed, together, ahead, sandbox))
                submitted += task
                continue
            with lap("waiting_for_decoding"):
                outcomes, seconds = pending.popleft().result()
            add_beside("decoding", seconds)
            for outcome in outcomes:
                share = seconds / len(outcomes)
                if isinstance(outcome, DecodedPair):
                    largest = max(largest, outcome.generated.nbytes + outcome.target.nbytes)
                elif outcome.reason == "too_many_pixels" and ahead != policy:
                    with lap("waiting_for_decoding"):
                        (outcome,), share = decode_timed([encoded[taken]], policy, sandbox)
                    add_beside("decoding", share)
                taken += 1
                yield outcome, share
    finally:
        executor.shutdown(cancel_futures=True)


def _same_target(encoded: Sequence[EncodedPair], row: int) -> bool:
    """Tell whether a row has the target of the row before."""
    return encoded[row][1] is encoded[row - 1][1] is not None
