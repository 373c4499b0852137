"""Decode the pairs of a chunk ahead of the network, in threads that wait for a child each."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock

from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.pairs import DecodedPair
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


# Per pair, what it decodes to, and the seconds for all of them.
_Outcomes = tuple[list[DecodedPair | DecodeError], float]


def decode_timed(encoded: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox) -> _Outcomes:
    """As `decode_pairs`, and the seconds that it took."""
    begun = time.perf_counter()
    return decode_pairs(encoded, policy, sandbox), time.perf_counter() - begun


class DecodeAhead:
    """Decodes pairs in threads that wait for a child each, from now on; what waits for the network is bounded.

    Iterating, once, yields per pair, in this order, what it decodes to, and its share of the seconds in which it was
    decoded together with others.

    Args:
        encoded: the pairs; those that share a target follow each other.
        policy: which images to admit, and how to convert them.
        sandbox: whose children decode.
        batching: the batches that are made of the pairs.
    """

    def __init__(self, encoded: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox, batching: Batching):
        self._encoded, self._policy, self._sandbox, self._batching = encoded, policy, sandbox, batching
        self._ahead = replace(policy, max_image_pixels=min(policy.max_image_pixels, _PIXELS_AHEAD))
        self._threads = thread_count()
        self._executor = ThreadPoolExecutor(self._threads, "decode")
        self._pending: deque[Future[_Outcomes]] = deque()
        self._submitted = self._taken = self._largest = 0
        self._closed = False
        # Guards the pending tasks and these counts.
        self._lock = Lock()
        self._submit()

    def close(self) -> None:
        """Begin no more; wait for what is being decoded."""
        with self._lock:
            self._closed = True
        self._executor.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[DecodedPair | DecodeError, float]]:
        try:
            while self._pending:
                with lap("waiting_for_decoding"):
                    outcomes, seconds = self._pending.popleft().result()
                add_beside("decoding", seconds)
                for outcome in outcomes:
                    share = seconds / len(outcomes)
                    if isinstance(outcome, DecodeError) and self._waits_for_its_turn(outcome):
                        with lap("waiting_for_decoding"):
                            (outcome,), share = decode_timed([self._encoded[self._taken]], self._policy, self._sandbox)
                        add_beside("decoding", share)
                    self._taken += 1
                    yield outcome, share
                self._submit()
        finally:
            self.close()

    def _waits_for_its_turn(self, error: DecodeError) -> bool:
        return error.reason == "too_many_pixels" and self._ahead != self._policy

    def _submit(self) -> None:
        """Begin as many tasks as their pairs may wait for the network."""
        encoded = self._encoded
        with self._lock:
            # Until one has come out, pairs are taken to be as large as they may be; after that, as large as the
            # largest so far.
            fitting = self._batching.pending_bytes // (self._largest or 6 * self._ahead.max_image_pixels)
            most = max(1, min(_BATCHES_AHEAD * self._batching.pairs, fitting))
            while self._submitted < len(encoded) and not self._closed:
                task = min(_TASK_PAIRS, max(1, most // self._threads), len(encoded) - self._submitted)
                while task < min(most, len(encoded) - self._submitted) and self._same_target(self._submitted + task):
                    # Candidates go together, so that their target is decoded once.
                    task += 1
                if self._submitted + task - self._taken > most:
                    return
                self._pending.append(self._executor.submit(self._run, self._submitted, self._submitted + task))
                self._submitted += task

    def _run(self, start: int, stop: int) -> _Outcomes:
        """Decode a task in its thread; now that its size is known, more may follow before anyone asks for it."""
        outcomes, seconds = decode_timed(self._encoded[start:stop], self._ahead, self._sandbox)
        decoded = [pair for pair in outcomes if isinstance(pair, DecodedPair)]
        with self._lock:
            self._largest = max([self._largest, *(pair.generated.nbytes + pair.target.nbytes for pair in decoded)])
        self._submit()
        return outcomes, seconds

    def _same_target(self, row: int) -> bool:
        """Tell whether a row has the target of the row before."""
        return self._encoded[row][1] is self._encoded[row - 1][1] is not None
