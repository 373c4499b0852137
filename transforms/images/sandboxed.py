"""Decode pairs in the children of a sandbox: the task they run, and what their worker makes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np

from transforms.images.decode import DecodedPair, DecodeError, DecodePolicy, check_length, decode_candidates
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import Sandbox, SandboxError, records_of

# The bytes of the generated image and of its target; None: the record holds no image.
EncodedPair = tuple[Buffer | None, Buffer | None]


def decode_pairs(
    pairs: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox
) -> list[DecodedPair | DecodeError]:
    """Decode pairs by `decode_pair`, in a child. Safe to call from many threads.

    Returns:
        per pair, in order, what it decodes to or why it cannot be used, a reason of `SANDBOX_REASONS` included.
    """
    refused = {index: error for index, pair in enumerate(pairs) if (error := _too_long(pair, policy))}
    admitted = [pair for index, pair in enumerate(pairs) if index not in refused]
    decoded = iter(_decode(admitted, policy, sandbox))
    return [refused[index] if index in refused else next(decoded) for index in range(len(pairs))]


def _decode(pairs: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox) -> list[DecodedPair | DecodeError]:
    # Pairs that share the bytes of their target, as candidates do, are decoded together.
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: id(pair[1]))]
    records = [[group[0][1], *(generated for generated, _ in group)] for group in groups]
    found: list[DecodedPair | DecodeError] = []
    # All of them, for a child that was not heard out is ended.
    items = list(sandbox.each(f"{__name__}:decode_records", {"policy": asdict(policy)}, records))
    for group, item in zip(groups, items, strict=True):
        if isinstance(item, SandboxError) and len(group) > 1:
            # One of the candidates ended the child: it alone is blamed.
            found += [outcome for pair in group for outcome in _decode([pair], policy, sandbox)]
        else:
            found += _outcomes(item)
    return found


def decode_records(
    arguments: dict[str, Any], parts: Sequence[Buffer], file: BinaryIO | None
) -> Iterator[tuple[Any, Sequence[Buffer]]]:
    """The task: per target its pairs, each with shape, dtype, notes and the pixels of both images, or the error."""
    policy = DecodePolicy(**arguments["policy"])
    for target, *generated in records_of(arguments, parts):
        headers: list[dict[str, Any]] = []
        pixels: dict[int, np.ndarray] = {}
        for pair in decode_candidates(generated, target, policy):
            if isinstance(pair, DecodeError):
                if pair.reason == "out_of_memory":
                    # Perhaps records before it left too little: it gets another try.
                    raise MemoryError(pair.message) from pair
                headers.append({"error": [pair.reason, pair.message, pair.image]})
                continue
            images = [np.ascontiguousarray(image) for image in (pair.generated, pair.target)]
            # The target's pixels are sent once.
            pixels |= {id(image): image for image in images}
            places = [list(pixels).index(id(image)) for image in images]
            headers.append(
                {"shape": images[0].shape, "dtype": images[0].dtype.str, "notes": pair.notes, "pixels": places}
            )
        yield headers, list(pixels.values())


def _too_long(pair: EncodedPair, policy: DecodePolicy) -> DecodeError | None:
    """Why a pair is not even copied to a child."""
    for member, data in zip(("generated", "target"), pair, strict=True):
        try:
            check_length(len(data) if data is not None else 0, policy)
        except DecodeError as error:
            return DecodeError(error.reason, error.message, member)
    return None


def _outcomes(result: tuple[Any, Sequence[Buffer]] | SandboxError) -> Iterator[DecodedPair | DecodeError]:
    if isinstance(result, SandboxError):
        yield DecodeError(result.reason, str(result), "pair")
        return
    headers, parts = result
    for header in headers:
        if "error" in header:
            yield DecodeError(*header["error"])
        else:
            generated, target = (
                np.frombuffer(parts[place], header["dtype"]).reshape(header["shape"]) for place in header["pixels"]
            )
            yield DecodedPair(generated, target, tuple(header["notes"]))
