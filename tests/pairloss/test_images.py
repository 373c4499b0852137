"""Wrong images, as every function of the package refuses them."""

import re

import numpy as np
import pytest
from PIL import Image
from support.pictures import encode, noise

from pairloss import score

IMAGE = np.zeros((4, 6, 3), np.uint8)
FLOATS = IMAGE.astype(np.float32)
WRONG = {
    "gray": (IMAGE[..., 0], IMAGE[..., 0], "generated has shape [4, 6]; give RGB images [H, W, 3] or [B, H, W, 3]"),
    "alpha": (np.zeros((4, 6, 4)), IMAGE, "generated has shape [4, 6, 4]"),
    "channels first": (IMAGE, np.zeros((3, 4, 6)), "target has shape [3, 4, 6]; give RGB images"),
    "no pixels": (IMAGE[:0], IMAGE[:0], "generated has shape [0, 6, 3]"),
    "batch in a list": (
        [IMAGE[np.newaxis]],
        [IMAGE],
        "generated[0] has shape [1, 4, 6, 3]; give RGB images [H, W, 3],",
    ),
    "integers": (IMAGE.astype(int), IMAGE, "generated has dtype int64; give uint8, uint16 (both of full range) or"),
    "booleans": (IMAGE, IMAGE > 0, "target has dtype bool"),
    "levels as floats": (
        FLOATS + 255,
        FLOATS,
        "generated has values from 255.0 to 255.0; scale or clip floats to [0, ",
    ),
    "negative": ([FLOATS, FLOATS - 1], [FLOATS] * 2, "generated[1] has values from -1.0 to -1.0"),
    "hardly too large": (FLOATS, FLOATS + np.float32(1 + 2**-23), "target has values from 1.00000011920928"),
    "infinite": (FLOATS + np.inf, FLOATS, "generated has values from inf to inf; scale or clip floats to [0, 1]"),
    "not a number": (
        FLOATS,
        np.full_like(FLOATS, np.nan),
        "target has 72 values that are not a number; rep",
    ),
    "masked": (
        np.ma.array(FLOATS, mask=FLOATS == 0),
        FLOATS,
        "generated is a masked array; give the pixels that count",
    ),
    "nothing": (None, IMAGE, "generated is of type NoneType; give an array, the path of a file, or a list of them"),
    "a generator": ([IMAGE], (image for image in [IMAGE]), "target is of type generator; give an array, the path"),
    "bytes": (
        [IMAGE.tobytes()],
        [IMAGE],
        "generated[0] is of type bytes; give an array, the path of a file, or a list",
    ),
    "counts": ([IMAGE] * 2, IMAGE, "there are 2 generated images and 1 target images"),
    "sizes": ([IMAGE, IMAGE], [IMAGE, IMAGE[1:]], "pair 1: generated and target differ: uint8[4, 6, 3] and uint8[3, 6"),
    "types": (IMAGE, FLOATS, "pair 0: generated and target differ: uint8[4, 6, 3] and float32[4, 6, 3]; give two"),
}


@pytest.mark.parametrize(("generated", "target", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arrays(generated, target, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        score(generated, target, "mae")


MASK = np.ones((4, 6), bool)
WRONG_MASKS = {
    "channels": (np.ones((4, 6, 3)), "there are 1 pairs and 4 masks; give each pair its mask"),
    "batch in a list": ([MASK[np.newaxis]], "mask[0] has shape [1, 4, 6] and dtype bool; give numbers [H, W]"),
    "not a number": (np.where(MASK, np.nan, 1), "mask has 24 values that are not a number; replace them, or leave"),
    "words": (MASK.astype(str), "mask has shape [4, 6] and dtype <U5; give numbers [H, W] or [B, H, W]"),
    "size": (
        MASK[1:],
        "pair 0: the mask has shape [3, 6], its target [4, 6, 3]; give masks of the size of",
    ),
    "empty": (~MASK, "pair 0: no pixel within the border lies in its mask; leave the pair out"),
}


@pytest.mark.parametrize(("mask", "message"), WRONG_MASKS.values(), ids=WRONG_MASKS)
def test_wrong_masks(mask, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        score(IMAGE, IMAGE, "mae", mask=mask)


def test_wrong_files(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encode(IMAGE))
    bad.write_bytes(encode(noise(0, 40, 40))[:300])
    with pytest.raises(ValueError, match=rf"pair 1 \({bad} and {good}\): generated truncated: "):
        score([good, bad], [good, good], "mae")
    with pytest.raises(ValueError, match=rf"pair 0 \({bad}\): truncated: "):
        score(IMAGE, bad, "mae")
    with pytest.raises(ValueError, match=rf"pair 0 \({bad}\): truncated: "):
        score(IMAGE, IMAGE, "mae", mask=bad)
    with pytest.raises(ValueError, match=rf"pair 0 \({good} and {good} and {bad}\): mask truncated: "):
        score(good, good, "mae", mask=bad)
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        score(str(tmp_path / "absent.png"), good, "mae")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_memory_in_another_order_scores_the_same(dtype):
    images = [noise(seed, 20, 24, np.uint16) for seed in (1, 2)]
    images = [(image >> 8).astype(dtype) if dtype == np.uint8 else image.astype(dtype) for image in images]
    if np.dtype(dtype).kind == "f":
        images = [image / dtype(65535) for image in images]
    expected = score(*images, ["mae", "ssim", "ciede2000"])
    others = {
        "columns first": map(np.asfortranarray, images),
        "every second": (np.repeat(image, 2, axis=1)[:, ::2] for image in images),
        "backwards": (image[::-1, :, ::-1].copy()[::-1, :, ::-1] for image in images),
        "other bytes": (image.astype(image.dtype.newbyteorder()) for image in images),
    }
    for order, arrays in others.items():
        assert score(*arrays, ["mae", "ssim", "ciede2000"]) == expected, order


def test_what_behaves_as_an_array():
    image = Image.fromarray(noise(1, 4, 6))
    assert score(image, IMAGE, "mae") == score(np.asarray(image), IMAGE, "mae")
