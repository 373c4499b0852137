"""Decode pairs in the children of a sandbox, which run `decode_task`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from transforms.images.decode import DecodedPair, DecodeError, DecodePolicy, check_length
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import Sandbox, SandboxError

# The bytes of the generated image and of its target; None: the record holds no image.
EncodedPair = tuple[Buffer | None, Buffer | None]

# What a child may get ready for, see `Sandbox.start`.
DECODE_TASK = "transforms.images.decode_task:decode_records"


def decode_pairs(
    pairs: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox
) -> list[DecodedPair | DecodeError]:
    """Decode pairs by `decode_pair`, in a child. Safe to call from many threads.

    Returns:
        per pair, in order, what it decodes to or why it cannot be used, a reason of `SANDBOX_REASONS` included.
    """
    refused = {index: error for index, pair in enumerate(pairs) if (error := _too_long(pair, policy))}
    admitted = [pair for index, pair in enumerate(pairs) if index not in refused]
    # All of them, for a child that was not heard out is ended.
    decoded = iter(list(sandbox.each(DECODE_TASK, {"policy": asdict(policy)}, admitted)))
    return [refused[index] if index in refused else _outcome(next(decoded)) for index in range(len(pairs))]


def _too_long(pair: EncodedPair, policy: DecodePolicy) -> DecodeError | None:
    """Why a pair is not even copied to a child."""
    for member, data in zip(("generated", "target"), pair, strict=True):
        try:
            check_length(len(data) if data is not None else 0, policy)
        except DecodeError as error:
            return DecodeError(error.reason, error.message, member)
    return None


def _outcome(result: tuple[Any, Sequence[Buffer]] | SandboxError) -> DecodedPair | DecodeError:
    if isinstance(result, SandboxError):
        return DecodeError(result.reason, str(result), "pair")
    header, parts = result
    if "error" in header:
        return DecodeError(*header["error"])
    generated, target = (np.frombuffer(part, header["dtype"]).reshape(header["shape"]) for part in parts)
    return DecodedPair(generated, target, tuple(header["notes"]))
