"""Arrays as images: range and layout are declared; hostile files cost themselves."""

import io
import zipfile

import numpy as np
import pytest

from transforms.images.decode import DecodeError, DecodePolicy, decode_image
from transforms.images.pairs import decode_pair
from transforms.images.sandboxed import decode_pairs
from transforms.worker.sandbox import Sandbox

WHOLE = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3) * 4


def npy(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def decode(data: bytes, range: str, layout: str = "hwc", **policy: int) -> np.ndarray:
    return decode_image(data, DecodePolicy(range=range, layout=layout, **policy)).pixels


class TestDecode:
    @pytest.mark.parametrize("data", [npy(WHOLE), npz(x=WHOLE), npy(np.asfortranarray(WHOLE)), npy(WHOLE.astype("f4"))])
    def test_whole_numbers_are_pixels(self, data):
        pixels = decode(data, "0..255")
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, WHOLE)

    @pytest.mark.parametrize(("range", "least", "width"), [("0..1", 0, 1), ("-1..1", -1, 2), ("0..255", 0, 255)])
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8"])
    def test_floats_are_scaled(self, range, least, width, dtype):
        values = np.random.default_rng(0).random((5, 4, 3))
        pixels = decode(npy((values * width + least).astype(dtype)), range)
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, values, atol=2e-7)

    def test_sixteen_bits(self):
        array = WHOLE.astype(np.uint16) * 257
        np.testing.assert_array_equal(decode(npy(array), "0..65535"), array)

    def test_layouts(self):
        np.testing.assert_array_equal(decode(npy(np.moveaxis(WHOLE, 2, 0)), "0..255", "chw"), WHOLE)
        for gray, layout in ((WHOLE[..., 0], "hwc"), (WHOLE[..., :1], "hwc"), (WHOLE[None, ..., 0], "chw")):
            image = decode_image(npy(gray), DecodePolicy(range="0..255", layout=layout))
            np.testing.assert_array_equal(image.pixels, np.stack([WHOLE[..., 0]] * 3, axis=2))
            assert image.notes == ("gray",)

    @pytest.mark.parametrize(("range", "noted"), [("0..1", False), ("-1..1", True), ("0..255", True)])
    def test_values_that_would_fit_another_range_are_noted(self, range, noted):
        image = decode_image(npy(np.linspace(0, 1, 60).reshape(5, 4, 3)), DecodePolicy(range=range))
        assert ("other_range" in image.notes) == noted

    @pytest.mark.parametrize(
        ("data", "range", "reason"),
        [
            (npy(WHOLE), "", "undeclared_range"),
            (npy(WHOLE / 255.0 - 0.1), "0..1", "outside_range"),
            (npy(WHOLE), "0..1", "outside_range"),
            (npy(WHOLE * np.nan), "0..255", "outside_range"),
            (npy((WHOLE + 1) * np.inf), "0..255", "outside_range"),
            (npy(WHOLE[..., :2]), "0..255", "unsupported_mode"),
            (npy(np.zeros((2, 5, 4, 3))), "0..1", "unsupported_mode"),
            (npy(np.zeros((0, 4, 3))), "0..1", "unsupported_mode"),
            (npy(WHOLE.astype(complex)), "0..255", "unsupported_mode"),
            (npy(WHOLE.astype("U3")), "0..255", "unsupported_mode"),
            (npy(np.array([[None] * 4] * 5)), "0..255", "unsupported_mode"),
            (npy(WHOLE)[:-1], "0..255", "truncated"),
            (npy(WHOLE)[:20], "0..255", "corrupt"),
            (b"\x93NUMPY\x07\x00aaaa", "0..255", "corrupt"),
            (npz(a=WHOLE, b=WHOLE), "0..255", "unsupported_mode"),
            (npz(a=WHOLE)[:-10], "0..255", "corrupt"),
            # Its directory claims to be larger than the file.
            (npz(a=WHOLE)[:-10] + (9999).to_bytes(4, "little") + bytes(6), "0..255", "corrupt"),
            (npy(WHOLE).replace(b"'descr'", b"('descr", 1), "0..255", "corrupt"),
            (npz(a=np.zeros((1000, 1000, 3))), "0..1", "too_many_pixels"),
        ],
    )
    def test_failures(self, data, range, reason):
        with pytest.raises(DecodeError) as caught:
            decode(data, range, max_image_pixels=999_999)
        assert caught.value.reason == reason

    def test_a_header_that_claims_more_than_there_is(self):
        data = npy(WHOLE).replace(b"(5, 4, 3)", b"(9**99,3)", 1)
        with pytest.raises(DecodeError):
            decode(data, "0..255")

    def test_another_zip_file_is_no_array(self):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("mimetype", "image/openraster")
        with pytest.raises(DecodeError) as caught:
            decode(file.getvalue(), "0..1")
        assert caught.value.reason == "unknown_format"

    def test_a_bomb_is_not_unpacked(self):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", npy(np.zeros((3000, 3000, 3))))
        with pytest.raises(DecodeError, match="unpacks to more"):
            decode(file.getvalue(), "0..1", max_image_pixels=100_000)


class TestPairs:
    def test_with_an_image_of_another_type(self):
        from support.pictures import encode

        pair = decode_pair(npy((WHOLE / 255).astype(np.float32)), encode(WHOLE), DecodePolicy(range="0..1"))
        assert (pair.generated.dtype, pair.target.dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(pair.generated, pair.target)

    @pytest.mark.parametrize("policy", ["resize", "crop"])
    def test_sizes(self, policy):
        small, large = (np.random.default_rng(0).random((side, side, 3)).astype("f4") for side in (8, 12))
        pair = decode_pair(npy(large), npy(small), DecodePolicy(range="0..1", size_mismatch=policy))
        assert pair.generated.shape == (8, 8, 3)
        assert 0 <= pair.generated.min() <= pair.generated.max() <= 1

    def test_in_a_child(self):
        data = npy((WHOLE / 255).astype(np.float32))
        (pair,) = decode_pairs([(data, data)], DecodePolicy(range="0..1"), Sandbox())
        np.testing.assert_array_equal(pair.generated, (WHOLE / 255).astype(np.float32))
