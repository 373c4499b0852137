"""Decoding: Pillow's pixels bit for bit, a note for every change, a stable reason for every refusal."""

import io
import random
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.image_files import chunk, tiff

from transforms.images.decode import NOTES, REASONS, DecodeError, DecodePolicy, decode_image
from transforms.images.heic import HEIC_SUPPORTED
from transforms.images.jpeg_xl import JPEG_XL_SUPPORTED

POLICY = DecodePolicy()

lacks_heic = pytest.mark.skipif(HEIC_SUPPORTED, reason="the extra heic is installed, which decodes it")
lacks_jpeg_xl = pytest.mark.skipif(JPEG_XL_SUPPORTED, reason="the extra jxl is installed, which decodes it")


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Smooth colours with some noise, [H, W] or [H, W, channels] uint8; nowhere 0, so no row looks missing."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(7).integers(0, 20, (height, width, channels))
    planes = np.stack([2 * x, 3 * y, x + y, 255 - x - y][:channels], axis=-1) % 200 + 20 + noise
    return planes.astype(np.uint8) if channels > 1 else planes[:, :, 0].astype(np.uint8)


def encoded(source: np.ndarray | Image.Image, format: str, **options) -> bytes:
    image = source if isinstance(source, Image.Image) else Image.fromarray(source)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(samples: np.ndarray, depth: int, colour: int, extra: bytes = b"", height: int | None = None) -> bytes:
    """A PNG written by hand: samples are rows of bytes; `height` forges the header."""
    header = struct.pack(">IIBBBBB", samples.shape[1], height or len(samples), depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def reason_of(data: bytes | None, policy: DecodePolicy = POLICY) -> str:
    with pytest.raises(DecodeError) as failure:
        decode_image(data, policy)
    assert failure.value.reason in REASONS
    assert failure.value.message
    return failure.value.reason


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


JPEG = encoded(picture(), "JPEG", quality=90)
PROGRESSIVE = encoded(picture(), "JPEG", quality=90, progressive=True)
PNG = encoded(picture(), "PNG")
GRAY16 = (np.arange(48 * 64, dtype=np.uint16) * 21 + 5).reshape(48, 64)


@pytest.mark.parametrize(
    "data",
    [
        *(encoded(picture(), "JPEG", quality=q, subsampling=s) for q in (30, 95) for s in (0, 1, 2)),
        PROGRESSIVE,
        encoded(picture(37, 53), "JPEG"),
        encoded(picture(), "JPEG", restart_marker_rows=1),
        PNG,
        encoded(picture(1, 1), "PNG"),
        encoded(picture(), "WEBP"),
        encoded(picture(), "WEBP", lossless=True),
        encoded(picture(), "BMP"),
        *(encoded(picture(), "TIFF", compression=c) for c in ("raw", "tiff_lzw", "tiff_deflate", "jpeg")),
    ],
)
def test_pixels_are_pillows_bit_for_bit(data):
    image = decode_image(data, POLICY)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels, pillow(data))
    assert image.notes == (("constant",) if image.pixels.size == 3 else ())


HOLE = np.dstack([picture(), np.where(np.arange(64) < 9, 0, 255) * np.ones((48, 1))]).astype(np.uint8)
SEE_THROUGH = Image.fromarray(HOLE)
WIDE_GAMUT = b"\0" * 128 + struct.pack(">I4sII", 1, b"desc", 144, 10) + b"Display P3"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGB16 = GRAY16[:, :, np.newaxis].repeat(3, axis=2)
TWO_FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - picture())]}


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (encoded(picture(channels=1), "PNG"), ("gray",)),
        (encoded(picture(channels=1), "JPEG"), ("gray",)),
        (encoded(picture(channels=1), "TIFF"), ("gray",)),
        (encoded(Image.fromarray(picture(channels=1)).convert("1"), "PNG"), ("gray",)),
        (encoded(Image.fromarray(picture()).convert("P"), "PNG"), ("palette",)),
        (encoded(picture(), "GIF"), ("palette",)),
        (encoded(SEE_THROUGH, "GIF"), ("palette", "alpha")),
        (encoded(SEE_THROUGH, "PNG"), ("alpha",)),
        (encoded(SEE_THROUGH, "WEBP", lossless=True), ("alpha",)),
        (encoded(SEE_THROUGH, "TIFF"), ("alpha",)),
        (encoded(SEE_THROUGH.convert("LA"), "PNG"), ("gray", "alpha")),
        (encoded(Image.fromarray(picture()).convert("RGBA"), "PNG"), ()),
        (encoded(picture(), "PNG", transparency=tuple(int(v) for v in picture()[0, 0])), ("alpha",)),
        (encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG"), ("cmyk",)),
        (encoded(Image.fromarray(picture()).convert("CMYK"), "TIFF"), ("cmyk",)),
        (encoded(GRAY16, "PNG"), ("16bit", "gray")),
        (png(GRAY16.astype(">u2"), 16, 0, chunk(b"tRNS", struct.pack(">H", 5))), ("16bit", "gray", "alpha")),
        (png(RGB16.astype(">u2"), 16, 2), ("16bit",)),
        (tiff(RGB16, {258: (3, (16, 16, 16)), 262: (3, (2,)), 277: (3, (3,))}), ("16bit",)),
        (encoded(picture(), "GIF", **TWO_FRAMES), ("animated", "palette")),
        (encoded(picture(), "PNG", **TWO_FRAMES), ("animated",)),
        (encoded(picture(), "WEBP", lossless=True, **TWO_FRAMES), ("animated",)),
        (encoded(picture(), "TIFF", **TWO_FRAMES), ("animated",)),
        (encoded(picture(), "JPEG", exif=exif(1)), ()),
        (encoded(picture(), "JPEG", exif=exif(6)), ("exif_rotated",)),
        (encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\0\0\0"), ("exif_unreadable",)),
        (encoded(picture(), "PNG", icc_profile=WIDE_GAMUT), ("icc_profile",)),
        (encoded(picture(), "JPEG", icc_profile=b"rubbish"), ("icc_profile",)),
        (encoded(picture(), "JPEG", icc_profile=SRGB), ()),
        (encoded(np.full((9, 9, 3), 200, np.uint8), "PNG"), ("constant",)),
        (encoded(np.zeros((9, 9, 3), np.uint8), "PNG"), ("constant",)),
        (encoded(np.full((48, 48, 3), 128, np.uint8), "JPEG"), ("constant",)),
    ],
)
def test_every_change_leaves_a_note(data, notes):
    image = decode_image(data, POLICY)
    assert image.notes == notes
    assert set(notes) <= NOTES.keys()
    assert image.pixels.shape[2] == 3
    assert image.pixels.flags.c_contiguous
    if "16bit" not in notes and "alpha" not in notes and "exif_rotated" not in notes:
        np.testing.assert_array_equal(image.pixels, pillow(data))


def test_alpha_is_composited_on_white():
    half = np.full((2, 2, 4), (100, 0, 255, 128), np.uint8)
    pixels = decode_image(encoded(half, "PNG"), POLICY).pixels
    expected = [round((v * 128 + 255 * 127) / 255) for v in (100, 0, 255)]
    np.testing.assert_array_equal(pixels[0, 0], expected)
    clear = decode_image(encoded(SEE_THROUGH, "PNG"), POLICY).pixels
    assert (clear[:, :9] == 255).all()
    np.testing.assert_array_equal(clear[:, 9:], picture()[:, 9:])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(format, orientation):
    lossless = {"WEBP": {"lossless": True}}.get(format, {})
    data = encoded(picture(), format, exif=exif(orientation), **lossless)
    stored = pillow(encoded(picture(), format, **lossless))
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]
    image = decode_image(data, POLICY)
    np.testing.assert_array_equal(image.pixels, turned)
    assert image.notes == (("exif_rotated",) if orientation > 1 else ())


@pytest.mark.parametrize(
    "data",
    [
        encoded(GRAY16, "PNG"),
        encoded(GRAY16, "TIFF"),
        encoded(GRAY16, "TIFF", compression="tiff_deflate"),
        *(tiff(GRAY16, {258: (3, (16,)), 262: (3, (1,)), 277: (3, (1,))}, order) for order in "<>"),
    ],
)
def test_16_bit_gray_keeps_every_bit(data):
    image = decode_image(data, POLICY)
    assert image.notes == ("16bit", "gray")
    assert image.pixels.dtype == np.dtype(np.uint16)
    assert image.pixels.dtype.isnative
    for channel in range(3):
        np.testing.assert_array_equal(image.pixels[:, :, channel], GRAY16)


def test_the_transparent_gray_of_16_bits_becomes_white():
    data = png(GRAY16.astype(">u2"), 16, 0, chunk(b"tRNS", struct.pack(">H", GRAY16[2, 3])))
    pixels = decode_image(data, POLICY).pixels[:, :, 1]
    np.testing.assert_array_equal(pixels, np.where(GRAY16[2, 3] == GRAY16, 65535, GRAY16))


def test_cmyk_jpeg_has_sane_colours():
    red = Image.new("RGB", (32, 32), (250, 10, 20))
    pixels = decode_image(encoded(red.convert("CMYK"), "JPEG", quality=95), POLICY).pixels
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), (250, 10, 20), atol=6)


def gif_bomb() -> bytes:
    data = bytearray(encoded(picture(), "GIF"))
    at = data.rindex(b",\0\0\0\0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


def webp_canvas(width: int, height: int) -> bytes:
    data = bytearray(encoded(SEE_THROUGH, "WEBP", exif=exif(1)))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def overlapping_tiff() -> bytes:
    """Tags that each claim the same 60 kB: read one by one they would take the memory of thousands of files."""
    entries = b"".join(struct.pack("<HHII", 40000 + n, 7, 60000, 8) for n in range(5000))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 5000) + entries + bytes(4)


TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))
PROFILE_BOMB = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**24)))
PIXELS = picture(8, 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "null_image"),
        (b"", "empty_bytes"),
        (b"a line of text, no picture", "unknown_format"),
        (b"BM is how this longer line of text begins", "unknown_format"),
        (bytes(100), "unknown_format"),
        (b"\x89", "unknown_format"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "unknown_format"),
        (with_jpeg_size(JPEG, 60000, 60000), "too_many_pixels"),
        (with_jpeg_size(JPEG, 0, 0), "zero_size"),
        (png(PIXELS, 8, 2, height=2**30), "too_many_pixels"),
        (webp_canvas(2**16, 2**15), "too_many_pixels"),
        (gif_bomb(), "too_many_pixels"),
        (PNG.replace(PNG[16:24] + PNG[24:33], bytes(8) + PNG[24:29] + struct.pack(
            ">I", zlib.crc32(b"IHDR" + bytes(8) + PNG[24:29]))), "zero_size"),
        (encoded(picture().astype(np.float32)[:, :, 0], "TIFF"), "unsupported_mode"),
        (encoded(Image.fromarray(picture()[:, :, 0].astype(np.int32)), "TIFF"), "unsupported_mode"),
        (encoded(ImageCms.applyTransform(Image.fromarray(picture()), ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")), "TIFF"),
         "unsupported_mode"),
        (tiff(GRAY16, {258: (3, (16,)), 262: (3, (0,)), 277: (3, (1,))}), "unsupported_mode"),
        (tiff(GRAY16[:, ::2], {258: (3, (12,)), 262: (3, (1,)), 277: (3, (1,))}), "unsupported_mode"),
        (overlapping_tiff(), "corrupt"),
        (PNG[:60] + bytes(40) + PNG[100:], "corrupt"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"transparency\0yes"), "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"II*\0\xff\xff\0\0", "truncated"),
    ],
)  # fmt: skip
def test_every_refusal_has_its_reason(data, reason):
    assert reason_of(data, DecodePolicy(max_image_pixels=1 << 23)) == reason


def test_exif_is_not_read_tag_by_tag():
    """2500 tags that each claim the same 40 kB would be 100 MB."""
    entries = b"".join(struct.pack("<HHII", 40000 + n, 7, 40000, 8) for n in range(2500))
    bomb = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2500) + entries + bytes(20000)
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(bomb) + 2) + bomb + JPEG[20:]
    tracemalloc.start()
    try:
        image = decode_image(data, POLICY)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(image.pixels, decode_image(JPEG, POLICY).pixels)


def test_limits_are_inclusive():
    pixels, size = 48 * 64, len(PNG)
    assert decode_image(PNG, DecodePolicy(pixels, size)).pixels.shape == (48, 64, 3)
    assert reason_of(PNG, DecodePolicy(pixels - 1, size)) == "too_many_pixels"
    assert reason_of(PNG, DecodePolicy(pixels, size - 1)) == "too_many_bytes"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        pytest.param(b"\xff\x0a", "JPEG XL", marks=lacks_jpeg_xl),
        pytest.param(b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", marks=lacks_jpeg_xl),
        pytest.param(b"\0\0\0\x20ftypheic", "HEIC", marks=lacks_heic),
        (b"v/1\x01\x02", "OpenEXR"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn by hand -->\n<svg/>", "SVG"),
        (b"MM\0+\0\x08\0\0", "BigTIFF"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"P7\nWIDTH 2\n", "PAM"),
        (b"PF\n2 2\n-1.0\n", "PFM"),
    ],
)
def test_a_known_format_is_refused_by_name(head, name):
    with pytest.raises(DecodeError, match=name) as failure:
        decode_image(head, POLICY)
    assert failure.value.reason == "unsupported_format"


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "data",
    [JPEG, PROGRESSIVE, PNG] + [encoded(picture(), format) for format in ("WEBP", "BMP", "GIF", "TIFF")],
    ids=["jpeg", "progressive", "png", "webp", "bmp", "gif", "tiff"],
)
def test_a_truncated_file_fails(data, keep):
    assert reason_of(data[: int(len(data) * keep)]) == "truncated"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"progressive": True},
        {"optimize": True},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3},
    ],
)
@pytest.mark.parametrize("source", [picture(), picture(channels=1)], ids=["rgb", "gray"])
def test_a_forged_jpeg_size_within_the_limit_fails(source, options):
    """Pillow alone decodes these: the end marker comes early, libjpeg warns and fills with gray."""
    data = encoded(source, "JPEG", **options)
    for width, height in ((64, 96), (2000, 2000)):
        assert reason_of(with_jpeg_size(data, width, height)) == "truncated"
    if "progressive" not in options:
        assert reason_of(data[: len(data) * 2 // 3] + b"\xff\xd9") == "truncated"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_really_ends_in_gray_is_fine(options):
    letterbox = np.full((64, 64, 3), 128, np.uint8)
    letterbox[:24] = picture(24, 64)
    data = encoded(letterbox, "JPEG", **options)
    np.testing.assert_array_equal(decode_image(data, POLICY).pixels, pillow(data))


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_missing_rows_of_a_png_fail_and_black_ones_do_not(colour):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = picture(channels=4)[:, :, :channels].copy()
    assert reason_of(png(rows, 8, colour, height=96)) == "truncated"
    rows[-9:] = 0
    assert decode_image(png(rows, 8, colour), POLICY).pixels.shape == (48, 64, 3)


def test_missing_strips_of_a_tiff_fail():
    tags = {258: (3, (8, 8, 8)), 262: (3, (2,)), 277: (3, (3,))}
    assert decode_image(tiff(picture(), tags), POLICY).notes == ()
    assert reason_of(tiff(picture(), {**tags, 257: (3, (96,))})) == "truncated"


@pytest.mark.parametrize(("height", "missing_rows"), [(48, 1), (49, 1), (49, 20)])
def test_missing_rows_of_an_interlaced_png_fail(height, missing_rows):
    """The last row of an odd height is not what the file ends with."""
    samples = picture(height, 64)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in samples[y::dy, x::dx]]

    def adam7(rows: list[bytes]) -> bytes:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, height, 8, 2, 0, 0, 1))
        data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
        return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")

    np.testing.assert_array_equal(decode_image(adam7(rows), POLICY).pixels, samples)
    assert reason_of(adam7(rows[:-missing_rows])) == "truncated"


def test_missing_rows_of_16_bits_fail():
    assert reason_of(png(GRAY16.astype(">u2"), 16, 0, height=96)) == "truncated"


def test_missing_rows_of_1_bit_fail():
    rows = np.random.default_rng(2).integers(0, 256, (48, 8), np.uint8)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 96, 1, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    assert reason_of(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")) == "truncated"


def test_missing_planes_of_a_tiff_fail():
    planes = np.moveaxis(picture(), 2, 0)
    tags = {258: (3, (8, 8, 8)), 262: (3, (2,)), 277: (3, (3,)), 284: (3, (2,))}

    def holding(number: int) -> bytes:
        offsets = tuple(8 + n * planes[0].size for n in range(number))
        data = planes.reshape(48, 64, 3)
        return tiff(data, {**tags, 273: (4, offsets), 279: (4, (planes[0].size,) * number)})

    np.testing.assert_array_equal(decode_image(holding(3), POLICY).pixels, picture())
    for number in (1, 2):
        assert reason_of(holding(number)) == "truncated"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 157, 255])
@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "TIFF"}, {"format": "JPEG", "quality": 100}])
def test_a_picture_that_ends_like_a_hole_is_fine(value, options):
    frame = picture(48, 64)
    frame[24:] = value
    data = encoded(frame, **options)
    np.testing.assert_array_equal(decode_image(data, POLICY).pixels, pillow(data))


def mutations(seed: int, count: int) -> list[bytes]:
    """Real files of every format with a few bytes changed, a piece cut out, or a piece doubled."""
    chance = random.Random(seed)
    small = picture(20, 24)
    sources = [
        encoded(small, "JPEG", exif=exif(6), icc_profile=SRGB),
        encoded(small, "JPEG", progressive=True),
        encoded(small, "PNG", icc_profile=WIDE_GAMUT, exif=exif(3)),
        encoded(Image.fromarray(small).convert("P"), "PNG"),
        encoded(GRAY16[:20, :24], "PNG"),
        encoded(small, "WEBP", exif=exif(3)),
        encoded(small, "BMP"),
        encoded(Image.fromarray(small).convert("P"), "BMP"),
        encoded(small, "TIFF", exif=exif(5)),
        encoded(small, "TIFF", compression="tiff_lzw"),
        encoded(small, "GIF", **TWO_FRAMES),
    ]
    files = []
    for n in range(count):
        data = bytearray(sources[n % len(sources)])
        # Half of the changes go to the header, where the parsers are.
        reach = len(data) if n % 2 else min(200, len(data))
        at, length = chance.randrange(2, reach), chance.randrange(1, 20)
        match n % 3:
            case 0:
                for _ in range(chance.randrange(1, 5)):
                    data[chance.randrange(2, reach)] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
        files.append(bytes(data))
    return files


def test_mutated_files_give_pixels_or_a_decode_error_and_no_warning():
    reasons = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in mutations(seed=3, count=660):
            try:
                image = decode_image(data, DecodePolicy(max_image_pixels=10_000))
            except DecodeError as error:
                reasons.append(error.reason)
            else:
                assert image.pixels.shape[0] * image.pixels.shape[1] <= 10_000
                assert image.pixels.shape[2] == 3
    assert [str(warning.message) for warning in caught] == []
    assert set(reasons) <= REASONS.keys()
    assert 100 < len(reasons) < 600


def test_threads_get_the_same_pixels():
    files = [JPEG, PROGRESSIVE, PNG, encoded(SEE_THROUGH, "GIF"), *mutations(seed=5, count=22)]

    def outcome(data: bytes) -> bytes | str:
        try:
            return decode_image(data, POLICY).pixels.tobytes()
        except DecodeError as error:
            return str(error)

    alone = [outcome(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, files * 4)) == alone * 4


@pytest.mark.parametrize("wrong", [{"size_mismatch": "stretch"}, {"max_image_pixels": 0}, {"max_image_bytes": -1}])
def test_a_wrong_policy_is_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        DecodePolicy(**wrong)
