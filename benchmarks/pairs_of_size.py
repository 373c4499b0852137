"""Sound pairs of any size, made of the photographs of `pairloss samples`."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from pipeline.samples import DEGRADATIONS, SEED, SamplePair, photographs, png


def pairs_of_size(height: int, width: int, count: int) -> Iterator[SamplePair]:
    """Make `count` sound pairs of one size out of random crops.

    Photographs and degradations take turns. A photograph smaller than the size is enlarged first.

    Raises:
        SamplesError: a photograph is missing.
    """
    rng = np.random.default_rng(SEED)
    photos = [(name, _at_least(photo, height, width)) for name, photo in photographs().items()]
    degradations = list(DEGRADATIONS.items())
    for number in range(count):
        name, photo = photos[number % len(photos)]
        degradation, degrade = degradations[number % len(degradations)]
        left = int(rng.integers(photo.width - width + 1))
        top = int(rng.integers(photo.height - height + 1))
        image = photo.crop((left, top, left + width, top + height))
        yield SamplePair(f"{name}/{degradation}/{number}", degrade(image), png(image), name, degradation)


def _at_least(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.height >= height and image.width >= width:
        return image
    return ImageOps.cover(image, (width, height), Image.Resampling.BICUBIC)
