"""The pictures of a page: without loss, and one pixel per pixel where a large pair differs most."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support.pictures import noise, smooth

from pipeline.audit.pages.thumbnails import SIDE, Heat, Thumbnail, thumbnails
from transforms.images.pairs import DecodedPair


def pixels(picture: Thumbnail) -> np.ndarray:
    content = base64.b64decode(picture.uri.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def pair(generated: np.ndarray, target: np.ndarray) -> DecodedPair:
    return DecodedPair(generated, target, ())


def test_small_pictures_are_the_images_themselves():
    generated, target = noise(1, 40, 56).astype(np.uint8), smooth(40, 56)
    found = thumbnails(pair(generated, target))
    assert [picture.kind for picture in found] == ["generated", "target", "difference"]
    np.testing.assert_array_equal(pixels(found[0]), generated)
    np.testing.assert_array_equal(pixels(found[1]), target)


def test_pixels_of_arrays_give_the_same_pictures():
    images = [np.full((16, 24, 3), level, np.uint8) for level in (51, 204)]
    floats = [(image / 255).astype(np.float32) for image in images]
    assert thumbnails(pair(*floats)) == thumbnails(pair(*images))


@pytest.mark.parametrize(("height", "width"), [(400, 600), (1000, 100), (257, 256)])
@pytest.mark.parametrize("corner", [(0, 0), (0.5, 0.5), (1, 1)])
def test_large_pictures_have_a_crop_where_they_differ_most(height, width, corner):
    target = smooth(height, width)
    generated = target.copy()
    top, left = (round(share * (size - 9)) for share, size in zip(corner, (height, width), strict=True))
    generated[top : top + 9, left : left + 9] ^= 128
    found = thumbnails(pair(generated, target))
    assert [(picture.kind, picture.crop) for picture in found] == [
        *((kind, crop) for crop in (False, True) for kind in ("generated", "target", "difference"))
    ]
    crop, crop_of_target = pixels(found[3]), pixels(found[4])
    assert crop.shape == (min(SIDE, height), min(SIDE, width), 3)
    assert (crop != crop_of_target).all(axis=2).sum() == 9 * 9


def test_maps_come_behind_the_difference_and_brighten_where_they_are_large():
    image = np.zeros((40, 56, 3), np.uint8)
    values = np.zeros((40, 56), np.float32)
    values[:, 28:] = 1
    values[:, 14:28] = 0.25
    found = thumbnails(pair(image, image), [Heat(kind, f"a {kind}", values) for kind in ("map", "gradient")])
    assert [picture.caption for picture in found[3:]] == ["a map", "a gradient"]
    for picture, middle in zip(found[3:], (0.25, 0.5), strict=True):
        shown = pixels(picture)[20].sum(axis=1)
        assert shown[3] < shown[20] < shown[40]
        # The heat of the middle is that of a quarter, or of its root.
        ramp = thumbnails(pair(image, image), [Heat("map", "", np.where(values == 0.25, middle, values))])[3]
        np.testing.assert_array_equal(pixels(picture), pixels(ramp))


def test_maps_leave_room_for_the_pictures_of_other_pairs():
    """A page holds 12 MB, and without loss a map takes as much of it as an image."""
    rough = noise(1, 256, 256).astype(np.uint8)
    heat = Heat("map", "where", np.random.default_rng(2).random((256, 256)).astype(np.float32))
    generated, *_, shown = thumbnails(pair(rough, smooth(256, 256)), [heat])
    assert len(shown.uri) < len(generated.uri) / 3
