"""Decode pairs in the children of a sandbox, which run `decode_task`, with JPEG data `jpeg_task`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np

from transforms.images.decode import DecodeError, DecodePolicy, check_length
from transforms.images.dicom import is_dicom
from transforms.images.jpeg import may_hold_jpeg
from transforms.images.pairs import DecodedPair
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import Sandbox, SandboxError

# The bytes of the generated image, of its target and, with masks, of its mask; None: the record holds no image.
EncodedPair = tuple[Buffer | None, ...]
_MEMBERS = ("generated", "target", "mask")

# A child may get ready for this task, see `Sandbox.start`.
DECODE_TASK = "transforms.images.decode_task:decode_records"
_JPEG_TASK = "transforms.images.jpeg_task:decode_records"
_DICOM_TASK = "transforms.images.dicom_task:decode_records"

# A target, and the generated images that share it.
_Record = Sequence[Buffer | None]
_Result = tuple[Any, Sequence[Buffer]] | SandboxError


def decode_pairs(
    pairs: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox
) -> list[DecodedPair | DecodeError]:
    """Decode pairs by `decode_pair`, in a child. Safe to call from many threads.

    Args:
        pairs: all with a mask, or all without.
        policy: which images to admit, and how to convert them.
        sandbox: whose child decodes.

    Returns:
        per pair, in order, what it decodes to or why it cannot be used, a reason of `SANDBOX_REASONS` included.
    """
    refused = {index: error for index, pair in enumerate(pairs) if (error := _too_long(pair, policy))}
    admitted = [pair for index, pair in enumerate(pairs) if index not in refused]
    decoded = iter(_decode(admitted, policy, sandbox))
    return [refused[index] if index in refused else next(decoded) for index in range(len(pairs))]


def _decode(pairs: Sequence[EncodedPair], policy: DecodePolicy, sandbox: Sandbox) -> list[DecodedPair | DecodeError]:
    # Pairs that share the bytes of their target and mask, as candidates do, are decoded together.
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: tuple(map(id, pair[1:])))]
    records = [[*group[0][1:], *(pair[0] for pair in group)] for group in groups]
    arguments = {"policy": asdict(policy), "masked": len(pairs[0]) - 2 if pairs else 0}
    found: list[DecodedPair | DecodeError] = []
    for group, item in zip(groups, _results(records, arguments, sandbox), strict=True):
        if isinstance(item, SandboxError) and len(group) > 1:
            # One of the candidates ended the child: it alone is blamed.
            found += [outcome for pair in group for outcome in _decode([pair], policy, sandbox)]
        else:
            found += _outcomes(item)
    return found


def _results(records: Sequence[_Record], arguments: Mapping[str, Any], sandbox: Sandbox) -> list[_Result]:
    """Per record, in order, what became of it."""
    # Only children of their own load TensorFlow.
    apart = [sandbox.enabled and any(image and is_dicom(image) for image in record) for record in records]

    def run(task: str, theirs: bool) -> Iterator[_Result]:
        chosen = [record for record, own in zip(records, apart, strict=True) if own == theirs]
        # All of them, for a child that was not heard out is ended.
        return iter(list(sandbox.each(task, arguments, chosen, theirs)))

    checked = any(image and may_hold_jpeg(image) for record in records for image in record)
    plain, dicom = run(_JPEG_TASK if checked else DECODE_TASK, False), run(_DICOM_TASK, True)
    return [next(dicom if own else plain) for own in apart]


def _too_long(pair: EncodedPair, policy: DecodePolicy) -> DecodeError | None:
    """Why a pair is not even copied to a child."""
    for member, data in zip(_MEMBERS, pair, strict=False):
        try:
            check_length(len(data) if data is not None else 0, policy)
        except DecodeError as error:
            return DecodeError(error.reason, error.message, member)
    return None


def _outcomes(result: _Result) -> Iterator[DecodedPair | DecodeError]:
    if isinstance(result, SandboxError):
        yield DecodeError(result.reason, str(result), "pair")
        return
    headers, parts = result
    for header in headers:
        if "error" in header:
            yield DecodeError(*header["error"])
        else:
            generated, target, *masks = (parts[place] for place in header["pixels"])
            pixels = [np.frombuffer(part, header["dtype"]).reshape(header["shape"]) for part in (generated, target)]
            mask = np.frombuffer(masks[0], bool).reshape(header["shape"][:2]) if masks else None
            yield DecodedPair(pixels[0], pixels[1], tuple(header["notes"]), mask)
