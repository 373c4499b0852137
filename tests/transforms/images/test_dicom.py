"""DICOM, where tensorflow-io is installed: the pixels, the notes, and files that would take a process down."""

import zlib
from base64 import b64decode
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support import dicom_files
from support.decoded import reason
from support.dicom_files import dicom, element, file_of
from support.pictures import encode, noise, smooth
from support.required import missing

from transforms.images.decode import DecodeError, DecodePolicy, decode_image
from transforms.images.dicom import DICOM_SUPPORTED
from transforms.images.pairs import DecodedPair
from transforms.images.sandboxed import decode_pairs
from transforms.worker.sandbox import Sandbox

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.tensorflow_io,
    # pydicom warns of what breaks the standard.
    pytest.mark.filterwarnings("ignore:::pydicom"),
]

POLICY = DecodePolicy()
GRAY = noise(3, 20, 30)[:, :, 0]
DEEP = noise(4, 20, 30, np.uint16)[:, :, 0]
COLOR = noise(5, 20, 30)
TWELVE = DEEP >> 4
FULL_TWELVE = np.rint(TWELVE / 4095 * 65535)
PHOTO = encode(smooth(20, 30), "JPEG", quality=95, subsampling=0)
WAVELETS = {"format": "JPEG2000", "no_jp2": True, "mct": 0}
DISPLAY = {
    "window": {0x0028_1050: ("DS", "40"), 0x0028_1051: ("DS", "400")},
    "offset": {0x0028_1052: ("DS", "-1024"), 0x0028_1053: ("DS", "1")},
    "unit": {0x0028_1052: ("DS", "0"), 0x0028_1053: ("DS", "0.01")},
}
# 24x16 pixels, 8 and 12 bits, as JPEG Lossless and JPEG-LS: `x * 9 + y` and 16 times that. Written by imagecodecs.
RAMP = (np.arange(24) * 9 + np.arange(16)[:, np.newaxis]).astype(np.uint16)
LOSSLESS_12 = b64decode(
    "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAECAUM/8MACwwAEAAYAQARAP/aAAgBAAAGAADn/wCkKQpCkKQpCkKQpCkKQpCkKQpCkKQpCkKQ"
    "pCkKQ0EIQhCEIQhCEIQhCEIQhGghCEIQhCEIQhCEIQhCEI0EIQhCEIQhCEIQhCEIQhGghCEIQhCEIQhCEIQhCEI0EIQhCEIQhCEIQhCE"
    "IQhGghCEIQhCEIQhCEIQhCEI0EIQhCEIQhCEIQhCEIQhGghCEIQhCEIQhCEIQhCEI0EIQhCEIQhCEIQhCEIQhGghCEIQhCEIQhCEIQhC"
    "EI0EIQhCEIQhCEIQhCEIQhGghCEIQhCEIQhCEIQhCEI0EIQhCEIQhCEIQhCEIQhGghCEIQhCEIQhCEIQhCEI0EIQhCEIQhCEIQhCEIQh"
    "AP/Z"
)
JPEG_LS_8 = b64decode(
    "/9j/6AAgU1BJRkYAAgAAAQAAABAAAAAYCggGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsIABAAGAEBEQD/2gAIAQEAAAAAgoV4V7Vp/d3b"
    "u7u//20r/3/t/3/+T/9/9f9//r//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9/wP/Z"
)


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    if not DICOM_SUPPORTED:
        missing("tensorflow-io", "it is not installed (the extra tensorflow-io)")


def name(value: object) -> str:
    """For the name of a test: nothing of files and pixels."""
    return value if isinstance(value, str) else ""


def runs(*planes: np.ndarray) -> bytes:
    """Planes of bytes as DICOM's RLE, without a run (PS3.5, annex G)."""
    segments = [b"".join(b"\0" + bytes([value]) for value in plane.tobytes()) for plane in planes]
    offsets = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    return np.array([len(segments), *offsets, *[0] * (15 - len(segments))], "<u4").tobytes() + b"".join(segments)


@pytest.mark.parametrize(
    ("data", "pixels", "notes"),
    ids=name,
    argvalues=[
        (dicom(GRAY), GRAY, ("gray",)),
        (dicom(DEEP), DEEP, ("16bit", "gray")),
        (dicom(TWELVE, bits=12), FULL_TWELVE, ("16bit", "gray")),
        (dicom(GRAY >> 3, bits=5), np.rint((GRAY >> 3) / 31 * 255), ("gray",)),
        (dicom(COLOR), COLOR, ()),
        (dicom(noise(6, 20, 30, np.uint16)), noise(6, 20, 30, np.uint16), ("16bit",)),
        (dicom((DEEP.astype(int) - 32768).astype(np.int16)), DEEP, ("16bit", "gray")),
        (dicom((TWELVE.astype(int) - 2048).astype(np.int16), bits=12), FULL_TWELVE, ("16bit", "gray")),
        (dicom(GRAY, photometric="MONOCHROME1"), 255 - GRAY, ("inverted", "gray")),
        (dicom(TWELVE, bits=12, photometric="MONOCHROME1"), 65535 - FULL_TWELVE, ("inverted", "16bit", "gray")),
        (dicom(np.stack([GRAY, GRAY[::-1]]), frames=2), GRAY, ("animated", "gray")),
        (dicom(np.stack([COLOR, COLOR[::-1]]), frames=2), COLOR, ("animated",)),
        (dicom(GRAY, encoded=runs(GRAY), syntax=dicom_files.RLE), GRAY, ("gray",)),
        (dicom(COLOR, encoded=runs(*np.moveaxis(COLOR, 2, 0)), syntax=dicom_files.RLE), COLOR, ()),
        (dicom(COLOR, encoded=encode(COLOR, **WAVELETS), syntax=dicom_files.JPEG_2000), COLOR, ()),
        (
            dicom(COLOR, photometric="YBR_FULL", encoded=PHOTO, syntax=dicom_files.JPEG),
            np.asarray(Image.open(BytesIO(PHOTO))),
            (),
        ),
        (
            dicom(RAMP * 16, bits=12, encoded=LOSSLESS_12, syntax=dicom_files.JPEG_LOSSLESS),
            np.rint(RAMP * 16 / 4095 * 65535),
            ("unchecked", "16bit", "gray"),
        ),
        (dicom(RAMP.astype(np.uint8), encoded=JPEG_LS_8, syntax=dicom_files.JPEG_LS), RAMP, ("unchecked", "gray")),
        *(
            (dicom(TWELVE, bits=12, more=more), FULL_TWELVE, ("stored_values", "16bit", "gray"))
            for more in DISPLAY.values()
        ),
    ],
)
def test_pixels(data, pixels, notes):
    image = decode_image(data, POLICY)
    assert image.pixels.dtype == (np.uint16 if "16bit" in notes else np.uint8)
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, np.newaxis], 3, 2)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.notes == notes


@pytest.mark.parametrize("depth", [8, 16])
def test_a_palette(depth):
    colors = noise(7, 1, 256, np.uint8 if depth == 8 else np.uint16)[0]
    tables = {
        0x0028_1101 + n: element(0x0028_1101 + n, "US", np.array([256, 0, depth], "<u2").tobytes()) for n in range(3)
    }
    tables |= {0x0028_1201 + n: element(0x0028_1201 + n, "OW", colors[:, n].tobytes()) for n in range(3)}
    image = decode_image(dicom(GRAY, photometric="PALETTE COLOR", raw=tables), POLICY)
    np.testing.assert_array_equal(image.pixels, colors[GRAY])
    assert image.notes == (("16bit", "palette") if depth == 16 else ("palette",))


@pytest.mark.parametrize(
    ("data", "expected"),
    ids=name,
    argvalues=[
        (dicom(GRAY)[:-1], "truncated"),
        (dicom(GRAY)[:-300], "truncated"),
        (dicom(GRAY)[:-604], "truncated"),
        (dicom(GRAY)[:200], "truncated"),
        (dicom(GRAY)[:132], "truncated"),
        (dicom(GRAY, shape=(21, 30)), "truncated"),
        (dicom(GRAY, more={0x0028_0008: ("IS", "2")}), "truncated"),
        (dicom(GRAY, shape=(0, 30)), "zero_size"),
        (file_of(element(0x0008_0060, "CS", b"SR")), "zero_size"),
        (dicom(GRAY, shape=(60000, 60000)), "too_many_pixels"),
        (dicom(GRAY, photometric="HSV"), "unsupported_mode"),
        (dicom(GRAY.astype(np.uint32)), "unsupported_mode"),
        (dicom(GRAY, bits=9), "unsupported_mode"),
        (dicom(GRAY, syntax="1.2.840.10008.1.2.4.100"), "unsupported_mode"),
        (dicom(GRAY, encoded=runs(GRAY)[:-300], syntax=dicom_files.RLE), "corrupt"),
        (dicom(COLOR, photometric="YBR_FULL", encoded=PHOTO, syntax=dicom_files.JPEG, shape=(64, 64)), "truncated"),
        (
            dicom(COLOR, photometric="YBR_FULL", encoded=PHOTO[:-100], syntax=dicom_files.JPEG),
            "truncated",
        ),
        (dicom(RAMP, bits=12, encoded=LOSSLESS_12, syntax=dicom_files.JPEG_LOSSLESS, shape=(64, 64)), "corrupt"),
        (dicom(RAMP, bits=12, encoded=LOSSLESS_12[:150], syntax=dicom_files.JPEG_LOSSLESS), "corrupt"),
        (dicom(COLOR, encoded=encode(COLOR, **WAVELETS)[:300], syntax=dicom_files.JPEG_2000), "corrupt"),
    ],
)
def test_refusals(data, expected):
    """DCMTK itself fills missing pixels up with whatever memory holds."""
    assert reason(data) == expected


@pytest.mark.parametrize("seed", range(20))
def test_damage_is_no_other_error(seed):
    chance = np.random.default_rng(seed)
    data = bytearray(dicom(GRAY, more=DISPLAY["window"]))
    for place in chance.integers(132, 500, 5):
        data[place] = chance.integers(256)
    with suppress(DecodeError):
        decode_image(bytes(data), POLICY)


def test_in_children():
    """A bomb is a failure, the pictures around it are not. One test, because a child takes seconds to start."""
    good, png = dicom(GRAY), encode(COLOR)
    pixels = element(0x7FE0_0010, "OB", GRAY.tobytes())
    data_set = good[good.index(element(0x0008_0016, "UI", b"")[:6], 132) :].removesuffix(pixels)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(data_set + element(0x7FE0_0010, "OB", bytes(1 << 30))) + packer.flush()
    pairs = [(png, png), (good, png), (file_of(bomb, dicom_files.DEFLATED), good), (png, good)]
    found = decode_pairs(pairs, POLICY, Sandbox(memory=400 << 20))
    outcomes = ["decoded" if isinstance(one, DecodedPair) else one.reason for one in found]
    assert outcomes == ["decoded", "decoded", "out_of_memory", "decoded"]
    np.testing.assert_array_equal(found[3].target[:, :, 0], GRAY)
