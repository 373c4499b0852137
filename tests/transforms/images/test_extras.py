"""HEIC and JPEG XL, where their extras are installed."""

from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from support.decoded import reason
from support.dicom_files import dicom
from support.pictures import encode, noise

from benchmarks.fuzz_bases import HEIC
from transforms.images.decode import DecodeError, DecodePolicy, decode_image
from transforms.images.dicom import DICOM_SUPPORTED
from transforms.images.heic import HEIC_SUPPORTED
from transforms.images.jpeg_xl import JPEG_XL_SUPPORTED, jpeg_xl_bits, jpeg_xl_size, open_jpeg_xl

needs_heic = pytest.mark.skipif(not HEIC_SUPPORTED, reason="needs pi-heif (the extra heic)")
needs_jpeg_xl = pytest.mark.skipif(not JPEG_XL_SUPPORTED, reason="needs pillow-jxl-plugin (the extra jxl)")

QUARTERS = [[[200, 40, 40], [250, 250, 250]], [[0, 0, 0], [40, 40, 200]]]
POLICY = DecodePolicy()


def test_the_extra_is_named():
    for supported, data, extra in (
        (HEIC_SUPPORTED, HEIC, "heic"),
        (JPEG_XL_SUPPORTED, b"\xff\x0a" + bytes(20), "jxl"),
        (DICOM_SUPPORTED, dicom(noise(0, 4, 4)), "tensorflow-io"),
    ):
        if not supported:
            with pytest.raises(DecodeError, match=rf"pairloss\[{extra}\]"):
                decode_image(data, POLICY)


@needs_heic
class TestHeic:
    def test_pixels(self):
        image = decode_image(HEIC, POLICY)
        assert image.pixels.shape == (16, 24, 3)
        assert image.pixels[::8, ::12].tolist() == QUARTERS
        assert image.notes == ()

    @pytest.mark.parametrize("size", [12, 40, len(HEIC) // 2, len(HEIC) - 20])
    def test_a_cut_file_is_a_failure(self, size):
        assert reason(HEIC[:size]) in ("truncated", "corrupt")

    def test_size_limit(self):
        assert reason(HEIC, DecodePolicy(max_image_pixels=100)) == "too_many_pixels"

    @pytest.mark.parametrize("seed", range(20))
    def test_damage_is_no_other_error(self, seed):
        chance = np.random.default_rng(seed)
        data = bytearray(HEIC)
        for place in chance.integers(12, len(data), 5):
            data[place] = chance.integers(256)
        with suppress(DecodeError):
            decode_image(bytes(data), POLICY)


# The beginnings of files of these sizes, as the plugin writes them: by ratio, in eights, and of each length.
@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("ff0a41060013080100700267", (8, 8)),
        ("ff0a98c00100130801004902", (30, 20)),
        ("ff0a0210c0c00013080100ec", (7, 513)),
        ("ff0ac8d20100130801001e2c", (160, 90)),
        ("ff0a0000560e0013080100b4", (300, 1)),
        ("ff0a10001f4e180013080100", (10000, 3)),
    ],
)
def test_size_of_a_jpeg_xl(header, size):
    assert jpeg_xl_size(bytes.fromhex(header) + bytes(20)) == size


def boxed(*parts: tuple[bytes, bytes]) -> bytes:
    """A JPEG XL in boxes."""
    start = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl "
    return start + b"".join((len(body) + 8).to_bytes(4, "big") + kind + body for kind, body in parts)


def test_size_of_a_jpeg_xl_whose_codestream_lies_in_parts():
    """Files with metadata begin with a part of hardly more than the size."""
    head = bytes.fromhex("ff0a890600138802007408b59f20")
    data = boxed((b"jxlp", bytes(4) + head[:5]), (b"Exif", bytes(26)), (b"jxlp", b"\x80\0\0\1" + head[5:]))
    assert jpeg_xl_size(data) == jpeg_xl_size(head) == (48, 40)


# The beginnings of files as libjxl writes them: lossy, and of 12, 16 and 32 bits.
@pytest.mark.parametrize(
    ("header", "bits"),
    [("ff0a89060013880200", 8), ("ff0a896040d1220804", 12), ("ff0a89f00350b40804", 16), ("ff0a89c801142d0208", 32)],
)
def test_bits_of_a_jpeg_xl(header, bits):
    assert jpeg_xl_bits(None, bytes.fromhex(header) + bytes(20)) == bits


def test_an_animated_jpeg_xl_is_refused():
    with pytest.raises(DecodeError, match="last frame") as caught:
        open_jpeg_xl(bytes.fromhex("ff0a89044d00202608") + bytes(20))
    assert caught.value.reason == "unsupported_mode"


@needs_jpeg_xl
class TestJpegXl:
    @pytest.fixture(autouse=True)
    def plugin(self):
        pytest.importorskip("pillow_jxl")

    def test_pixels(self):
        pixels = noise(0, 20, 30)
        np.testing.assert_array_equal(decode_image(encode(pixels, "JXL", lossless=True), POLICY).pixels, pixels)

    @pytest.mark.parametrize("container", [False, True])
    @pytest.mark.parametrize("size", [(8, 8), (20, 30), (513, 7), (64, 64), (40, 50), (1, 300), (90, 160)])
    def test_size(self, size, container):
        height, width = size
        data = encode(noise(0, height, width), "JXL", effort=1, use_container=container)
        assert jpeg_xl_size(data) == (width, height)

    def test_size_limit(self):
        data = encode(noise(0, 20, 30), "JXL")
        assert reason(data, DecodePolicy(max_image_pixels=599)) == "too_many_pixels"

    @pytest.mark.parametrize("size", [2, 10, 50, 500])
    def test_a_cut_file_is_a_failure(self, size):
        assert reason(encode(noise(0, 20, 30), "JXL", lossless=True)[:size]) in ("truncated", "corrupt")

    def test_metadata_does_not_turn_it(self):
        """The codestream alone says which way up: ISO/IEC 18181-2, on the box Exif."""
        pixels = noise(0, 20, 30)
        block = Image.Exif()
        block[274] = 6
        image = decode_image(encode(pixels, "JXL", lossless=True, exif=block.tobytes()), POLICY)
        np.testing.assert_array_equal(image.pixels, pixels)
        assert image.notes == ()
