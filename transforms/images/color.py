"""ICC profiles: whether one means other colours than sRGB, and the conversion."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

# Gray ramp and cube of colours on which a profile is tried, and the difference in 1/255 that goes without a note.
_RAMP = np.arange(256, dtype=np.uint8)[np.newaxis]
_CUBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 9, dtype=np.uint8)] * 3), axis=-1).reshape(9, 81, 3)
_TOLERANCE = 3


def is_srgb(profile: bytes | None, gray: bool) -> bool:
    """Tells whether a profile gives a picture the colours that sRGB gives it.

    The profile's name does not count: some that call themselves sRGB are linear. False for a profile that
    cannot be read or fits neither colours nor gray.
    """
    return bool(profile) and _difference(profile, gray) <= _TOLERANCE


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """The image, of mode `L`, `RGB` or `CMYK`, in sRGB by the profile's perceptual table; None if it does not fit."""
    transform = _transform(profile or b"", image.mode)
    if transform is None:
        return None
    return transform.apply(image.convert(transform.input_mode))


@lru_cache(64)
def _difference(profile: bytes, gray: bool) -> int:
    """Largest difference in 1/255 that the profile makes on the test colours; 255 if it does not fit."""
    probe = Image.fromarray(_RAMP if gray else _CUBE)
    converted = to_srgb(probe, profile)
    if converted is None:
        return 255
    return int(np.abs(np.asarray(converted, np.int16) - np.asarray(probe.convert("RGB"), np.int16)).max())


@lru_cache(64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; a gray picture may have a profile of colours."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode == "L" and opened.profile.xcolor_space == "RGB ":
            mode = "RGB"
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
