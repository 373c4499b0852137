"""The task that decodes pairs in a child of the sandbox."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.pairs import decode_candidates
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import records_of


def decode_records(
    arguments: dict[str, Any], parts: Sequence[Buffer], file: BinaryIO | None
) -> Iterator[tuple[Any, Sequence[Buffer]]]:
    """Yield per target its pairs, each with shape, dtype, notes and the pixels of both images, or the error.

    A record is the target, its mask if `arguments["masked"]` says so, and the generated images.
    """
    policy = DecodePolicy(**arguments["policy"])
    for target, *further in records_of(arguments, parts):
        masks, generated = further[: arguments["masked"]], further[arguments["masked"] :]
        headers: list[dict[str, Any]] = []
        pixels: dict[int, np.ndarray] = {}
        for pair in decode_candidates(generated, target, policy, masks):
            if isinstance(pair, DecodeError):
                if pair.reason == "out_of_memory":
                    # Perhaps records before it left too little: it gets another try.
                    raise MemoryError(pair.message) from pair
                headers.append({"error": [pair.reason, pair.message, pair.image]})
                continue
            arrays = (pair.generated, pair.target, *([pair.mask] if pair.mask is not None else []))
            images = [np.ascontiguousarray(image) for image in arrays]
            # The target's pixels are sent once.
            pixels |= {id(image): image for image in images}
            places = [list(pixels).index(id(image)) for image in images]
            headers.append(
                {"shape": images[0].shape, "dtype": images[0].dtype.str, "notes": pair.notes, "pixels": places}
            )
        yield headers, list(pixels.values())
