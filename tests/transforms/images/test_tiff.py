"""TIFFs that Pillow and libtiff misread in silence: the right pixels, or a failure with the right reason."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from support.decoded import notes, pixels, reason
from support.image_files import tiff
from support.pictures import COLOURS, INDICES, encode, smooth

PICTURE = smooth(40, 48)
GRAY = PICTURE[:, :, 0]
RAMP = np.linspace(0, 65535, 16 * 16).round().astype(np.uint16).reshape(16, 16)


def layout(bits: int, white: int, **more: int) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Tags of a gray TIFF, and others by T and their number."""
    tags = {258: bits, 262: white, 277: 1, **{int(name[1:]): value for name, value in more.items()}}
    return {number: (3, (value,)) for number, value in tags.items()}


@pytest.mark.parametrize("order", "<>")
def test_one_sample_has_no_planes(order):
    """Pillow forgets which end is white, and the bits, of a gray picture that is said to be stored in planes."""
    np.testing.assert_array_equal(pixels(tiff(GRAY, layout(8, 0, T284=2), order))[:, :, 1], 255 - GRAY)
    np.testing.assert_array_equal(pixels(tiff(RAMP, layout(16, 1, T284=2), order))[:, :, 1], RAMP)
    nibbles = GRAY[:, ::2] & 0xF0 | GRAY[:, 1::2] >> 4
    data = tiff(nibbles, {**layout(4, 1, T284=2), 256: (3, (48,))}, order)
    np.testing.assert_array_equal(pixels(data)[:, :, 1], (GRAY >> 4) * 17)


@pytest.mark.parametrize("scale", [1, 257])
def test_a_colour_map_of_8_or_16_bits(scale):
    table = np.zeros((256, 3), int)
    table[:4] = COLOURS
    tags = {**layout(8, 3), 320: (3, tuple((table * scale).T.ravel().tolist()))}
    np.testing.assert_array_equal(pixels(tiff(INDICES, tags)), COLOURS[INDICES])


def planes(count: int, bits: int, white: int, *extra: int, **more: int) -> bytes:
    """A TIFF of planes that lie one after the other."""
    samples = np.ones((40, 48), np.uint8 if bits == 8 else np.uint16)
    tags = {**layout(bits, white, T277=count, T284=2, **more), 258: (3, (bits,) * count)}
    start = tuple(8 + n * samples.nbytes // count for n in range(count))
    tags |= {273: (4, start), 279: (4, (samples.nbytes // count,) * count), 257: (3, (40 // count,))}
    return tiff(samples, tags | ({338: (3, extra)} if extra else {}))


@pytest.mark.parametrize(
    "data",
    [
        tiff(GRAY.astype(np.int8), layout(8, 1, T339=2)),
        tiff(GRAY, {258: (3, (8,)), 277: (3, (1,))}),
        tiff(np.dstack([PICTURE, GRAY]), {**layout(8, 5, T277=4, T332=2), 258: (3, (8,) * 4)}),
        planes(4, 8, 2, 1),
        planes(4, 8, 2, 0),
        planes(4, 16, 5),
        planes(3, 8, 2, T266=2),
        *(tiff(GRAY, layout(8, 1, T259=compression)) for compression in (34712, 34887, 50001, 50002)),
    ],
    ids=["signed", "no white", "other inks", "planes and opacity that was multiplied", "planes and an extra one",
         "planes of 16-bit CMYK", "planes of reversed bits", "JPEG 2000", "LERC", "WebP", "JPEG XL"],
)  # fmt: skip
def test_a_tiff_that_pillow_would_misread_is_refused(data):
    assert reason(data) == "unsupported_mode"


def deflated() -> tuple[bytes, int, int]:
    """A TIFF of one strip of Deflate, and where the strip lies."""
    data = encode(PICTURE, "TIFF", compression="tiff_adobe_deflate")
    tags = Image.open(BytesIO(data)).tag_v2
    assert len(tags[273]) == 1
    return data, tags[273][0], tags[279][0]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_lost_data_of_a_deflated_tiff_is_seen(kept):
    """Zeros are sound codes of Deflate, of which libtiff makes pixels."""
    data, start, size = deflated()
    end = start + int(size * kept)
    assert reason(data[:end] + bytes(start + size - end) + data[start + size :]) in ("corrupt", "truncated")


def test_a_changed_byte_of_a_deflated_tiff_is_seen():
    data, start, size = deflated()
    for at in range(start, start + size, 37):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        assert reason(bytes(damaged)) in ("corrupt", "truncated")


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax_leaves_a_note(compression):
    """libtiff only warns of its damage."""
    data = encode(GRAY > 100, "TIFF", compression=compression)
    np.testing.assert_array_equal(pixels(data)[:, :, 0], np.where(GRAY > 100, 255, 0))
    assert "unchecked" in notes(data)


def primaries(*thousandths: int) -> bytes:
    """A TIFF with x and y of red, green and blue, and the white of sRGB."""
    file = BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[318], tags[319] = (0.313, 0.329), tuple(value / 1000 for value in thousandths)
    Image.fromarray(PICTURE).save(file, "TIFF", tiffinfo=tags)
    return file.getvalue()


def test_primaries_in_the_tags_of_a_tiff_leave_a_note():
    assert notes(primaries(640, 330, 300, 600, 150, 60)) == ()
    assert notes(primaries(680, 320, 265, 690, 150, 60)) == ("color_space",)
