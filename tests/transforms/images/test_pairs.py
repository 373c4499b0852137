"""Two images of a pair: brought to one dtype and one size, with the notes and the failures of each."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from support.pictures import encode, smooth

from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.pairs import decode_candidates, decode_pair

POLICY = DecodePolicy()
PICTURE = smooth(48, 64)
GRAY = PICTURE[:, :, 0]
GRAY16 = (np.arange(48 * 64, dtype=np.uint16) * 21 + 5).reshape(48, 64)
PNG = encode(PICTURE)
WIDE_GAMUT = b"\0" * 128 + struct.pack(">I4sII", 1, b"desc", 144, 10) + b"Display P3"


def test_a_pair_keeps_the_notes_of_each_image_apart():
    pair = decode_pair(encode(GRAY), encode(PICTURE, icc_profile=WIDE_GAMUT), POLICY)
    assert pair.notes == ("generated:gray", "target:icc_profile")
    np.testing.assert_array_equal(pair.target, PICTURE)


@pytest.mark.parametrize(("generated", "target", "image"), [(b"?", PNG, "generated"), (PNG, None, "target")])
def test_a_pair_says_which_image_failed(generated, target, image):
    with pytest.raises(DecodeError) as failure:
        decode_pair(generated, target, POLICY)
    assert failure.value.image == image
    copy = pickle.loads(pickle.dumps(failure.value))
    assert (copy.reason, copy.message, copy.image) == (failure.value.reason, failure.value.message, image)


def test_an_8_bit_image_next_to_a_16_bit_one_is_widened():
    pair = decode_pair(encode(GRAY), encode(GRAY16), POLICY)
    assert pair.generated.dtype == pair.target.dtype == np.uint16
    np.testing.assert_array_equal(pair.generated[:, :, 0] / 65535, GRAY / 255)


LARGE, SMALL = encode(smooth(61, 80)), encode(smooth(40, 91))


def test_two_sizes_fail_by_default():
    with pytest.raises(DecodeError, match="generated is 80x61, target is 91x40") as failure:
        decode_pair(LARGE, SMALL, POLICY)
    assert (failure.value.reason, failure.value.image) == ("size_mismatch", "pair")


def test_resize_brings_the_generated_image_to_the_target():
    pair = decode_pair(LARGE, SMALL, DecodePolicy(size_mismatch="resize"))
    assert pair.notes == ("generated:resized_from_80x61",)
    expected = Image.fromarray(smooth(61, 80)).resize((91, 40), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pair.generated, np.asarray(expected))
    np.testing.assert_array_equal(pair.target, smooth(40, 91))


def test_resize_of_16_bits_is_rounded_floats():
    gray = smooth(61, 80)[:, :, 0].astype(np.uint16) * 211 + 3
    pair = decode_pair(encode(gray), encode(GRAY16), DecodePolicy(size_mismatch="resize"))
    assert pair.generated.dtype == np.uint16
    assert pair.generated.shape == pair.target.shape == (48, 64, 3)
    floats = Image.fromarray(gray.astype(np.float32)).resize((64, 48), Image.Resampling.BICUBIC)
    for channel in range(3):
        expected = np.rint(np.asarray(floats)).clip(0, 65535)
        np.testing.assert_array_equal(pair.generated[:, :, channel], expected)


def test_crop_takes_the_common_centre():
    pair = decode_pair(LARGE, SMALL, DecodePolicy(size_mismatch="crop"))
    assert pair.notes == ("generated:cropped_from_80x61", "target:cropped_from_91x40")
    np.testing.assert_array_equal(pair.generated, smooth(61, 80)[10:50])
    np.testing.assert_array_equal(pair.target, smooth(40, 91)[:, 5:85])
    assert pair.generated.flags.c_contiguous
    assert pair.target.flags.c_contiguous
    inside = decode_pair(LARGE, encode(smooth(40, 80)), DecodePolicy(size_mismatch="crop"))
    assert inside.notes == ("generated:cropped_from_80x61",)


def test_a_generated_image_of_its_own_meets_half_of_its_target():
    policy = DecodePolicy(split="horizontal")
    left, right = PICTURE, PICTURE[::-1]
    both, own = encode(np.concatenate([left, right], axis=1)), encode(left)
    for pair in decode_candidates([both, own, own], both, policy):
        np.testing.assert_array_equal(pair.generated, left)
        np.testing.assert_array_equal(pair.target, right)
    np.testing.assert_array_equal(decode_pair(both, None, policy).target, right)
    (error,) = decode_candidates([own], encode(smooth(48, 63)), policy)
    assert error.reason == "size_mismatch"
