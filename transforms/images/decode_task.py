"""The task that decodes pairs in a child of the sandbox."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

# The check of JPEGs is compiled here, where no record pays for it.
import transforms.images.jpeg_entropy  # noqa: F401
from transforms.images.decode import DecodeError, DecodePolicy, decode_pair
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import records_of


def decode_records(
    arguments: dict[str, Any], parts: Sequence[Buffer], file: BinaryIO | None
) -> Iterator[tuple[Any, Sequence[Buffer]]]:
    """Yield per pair its shape, dtype and notes, and the pixels of both images; or the error."""
    policy = DecodePolicy(**arguments["policy"])
    for generated, target in records_of(arguments, parts):
        try:
            pair = decode_pair(generated, target, policy)
        except DecodeError as error:
            if error.reason == "out_of_memory":
                # Perhaps records before it left too little: it gets another try.
                raise MemoryError(error.message) from error
            yield {"error": [error.reason, error.message, error.image]}, ()
        else:
            header = {"shape": pair.generated.shape, "dtype": pair.generated.dtype.str, "notes": pair.notes}
            yield header, (np.ascontiguousarray(pair.generated), np.ascontiguousarray(pair.target))
