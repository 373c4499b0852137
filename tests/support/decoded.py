"""The outcome of decoding one image: its pixels, its notes, or the reason why it is refused."""

import numpy as np
import pytest

from transforms.images.decode import DecodeError, DecodePolicy, decode_image


def pixels(data: bytes) -> np.ndarray:
    """RGB [H, W, 3]."""
    return decode_image(data, DecodePolicy()).pixels


def notes(data: bytes, **policy: object) -> tuple[str, ...]:
    """The names of its notes."""
    return decode_image(data, DecodePolicy(**policy)).notes


def reason(data: bytes, policy: DecodePolicy = DecodePolicy()) -> str:
    """The reason of the failure, which has a message."""
    with pytest.raises(DecodeError) as failure:
        decode_image(data, policy)
    assert failure.value.message
    return failure.value.reason
