"""JPEGs, alone and in a TIFF: whole ones of every kind are Pillow's pixels, damaged ones are failures."""

import math
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support.decoded import pixels, reason
from support.pictures import encode

from transforms.images.decode import DecodeError, DecodePolicy, decode_image

POLICY = DecodePolicy()


def photograph(height: int = 80, width: int = 96) -> np.ndarray:
    """A smooth coloured picture with some noise, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 200 / width, y * 200 / height, (x + y) * 180 / (width + height)], axis=2) + 25
    return np.clip(base + np.random.default_rng(0).normal(0, 6, base.shape), 0, 255).astype(np.uint8)


def outcome(data: bytes) -> str:
    """The reason of the refusal; empty for a picture without notes."""
    try:
        assert decode_image(data, POLICY).notes == ()
    except DecodeError as error:
        return error.reason
    return ""


PICTURE = photograph()
JPEG = encode(PICTURE, "JPEG", quality=95)
PROGRESSIVE = encode(PICTURE, "JPEG", quality=95, progressive=True)
SCANS = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE[at : at + 2] == b"\xff\xda"]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("restart", [0, 1, 5])
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (80, 96)])
def test_whole_jpegs_are_pillows_pixels(progressive, quality, subsampling, restart, size):
    source = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8) if quality == 100 else photograph(*size)
    data = encode(source, "JPEG", progressive=progressive, quality=quality, subsampling=subsampling,
                  restart_marker_blocks=restart, optimize=restart == 5)  # fmt: skip
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_whole_jpegs_of_other_modes_are_pillows_pixels(mode, progressive):
    file = BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(file, "JPEG", progressive=progressive)
    expected = Image.open(file).convert("RGB")
    np.testing.assert_array_equal(pixels(file.getvalue()), np.asarray(expected))


@pytest.mark.parametrize(
    "data",
    [
        JPEG[: len(JPEG) * 2 // 3] + b"\x55" * 60 + JPEG[len(JPEG) * 2 // 3 + 60 :],
        JPEG[: len(JPEG) * 2 // 3] + JPEG[len(JPEG) * 2 // 3 + 60 :],
        JPEG[:-2] + b"\x55" * 30 + b"\xff\xd9",
    ],
    ids=["overwritten", "lost", "too much"],
)
def test_damage_that_libjpeg_does_not_see_or_only_warns_of(data):
    assert outcome(data) == "corrupt"


def test_most_overwritten_pieces_are_seen():
    chance = np.random.default_rng(5)
    start = JPEG.index(b"\xff\xda") + 14
    seen = 0
    for _ in range(60):
        at = int(chance.integers(start, len(JPEG) - 62))
        rubbish = chance.integers(0, 255, 60, np.uint8).tobytes()
        seen += outcome(JPEG[:at] + rubbish + JPEG[at + 60 :]) != ""
    assert seen >= 54


@pytest.mark.parametrize("kept", range(1, len(SCANS)))
def test_missing_scans_are_truncated(kept):
    assert outcome(PROGRESSIVE[: SCANS[kept]] + b"\xff\xd9") == "truncated"


def test_a_bomb_of_scans_is_refused_at_once():
    scan = PROGRESSIVE[SCANS[-1] : -2]
    assert outcome(PROGRESSIVE[:-2] + scan * 200 + b"\xff\xd9") == "corrupt"


@pytest.mark.parametrize(
    "data",
    [
        JPEG + b"rubbish behind the end",
        JPEG[:-2] + b"\xff\xff\xff\xd9",
        JPEG.replace(b"JFIF\0\1\1", b"JFIF\0\x09\1"),
        JPEG[:20] + (b"\xff\xe2\0\x20ICC_PROFILE\0\2\1" + bytes(16)) + JPEG[20:],
    ],
    ids=["trailing bytes", "fill bytes", "JFIF 9.1", "half a profile"],
)
def test_oddities_that_do_not_touch_pixels_are_fine(data):
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(BytesIO(JPEG))))


def jpeg_tiff() -> tuple[bytes, int, int]:
    """A TIFF of one JPEG strip, and where the strip lies."""
    data = encode(PICTURE, "TIFF", compression="jpeg", quality=95)
    tags = Image.open(BytesIO(data)).tag_v2
    assert len(tags[273]) == 1
    return data, tags[273][0], tags[279][0]


def test_damage_in_the_jpeg_of_a_tiff_is_seen():
    data, start, size = jpeg_tiff()
    assert outcome(data) == ""
    at = start + size * 2 // 3
    damaged = bytearray(data)
    damaged[at : at + 200] = np.random.default_rng(2).integers(0, 255, 200, np.uint8).tobytes()
    assert outcome(bytes(damaged)) in ("corrupt", "truncated")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_shortened_jpeg_of_a_tiff_is_truncated(share):
    data, start, size = jpeg_tiff()
    end = start + int(size * share)
    # The data ends early, and rubbish that is no JPEG follows.
    assert outcome(data[:end] + bytes(start + size - end) + data[start + size :]) in ("corrupt", "truncated")


def jpeg(*factors: tuple[int, int], width: int = 37, height: int = 29) -> bytes:
    """A JPEG of flat blocks whose components are sampled by these factors across and down."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    across, down = (8 * max(sides) for sides in zip(*factors, strict=True))
    blocks = math.ceil(width / across) * math.ceil(height / down) * sum(a * d for a, d in factors)
    # A difference of three bits behind its code, and the end of the block.
    bits = "".join(f"0{value:03b}0" for value in np.random.default_rng(0).integers(8, size=blocks))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, height, width, len(factors))
    frame += b"".join(bytes((n, a << 4 | d, 0)) for n, (a, d) in enumerate(factors, 1))
    scan = bytes((len(factors),)) + b"".join(bytes((n, 0)) for n in range(1, len(factors) + 1)) + b"\0\x3f\0"
    codes = segment(0xC4, b"\0\1" + bytes(15) + b"\3") + segment(0xC4, b"\x10\1" + bytes(15) + b"\0")
    head = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([8] * 64)) + segment(0xC0, frame) + codes
    return head + segment(0xDA, scan) + data + b"\xff\xd9"


@pytest.mark.parametrize(
    "factors",
    [((2, 2), (1, 1), (1, 1)), ((4, 2), (1, 1), (1, 1)), ((3, 1), (1, 1), (1, 1)), ((1, 1), (2, 2), (2, 2)),
     ((2, 1), (1, 1), (2, 1)), ((2, 2), (2, 1), (1, 2))],
    ids=str,
)  # fmt: skip
def test_every_subsampling_is_decoded_and_checked(factors):
    data = jpeg(*factors)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(BytesIO(data)).convert("RGB")))
    assert reason(data[:-12] + b"\xff\xd9") in ("corrupt", "truncated")


def test_jpeg_ls_is_refused_by_name():
    with pytest.raises(DecodeError, match="JPEG-LS") as failure:
        decode_image(b"\xff\xd8\xff\xf7\0\x0b\x08\0\x28\0\x30\1\1\x11\0", POLICY)
    assert failure.value.reason == "unsupported_format"
