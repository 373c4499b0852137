"""Layouts that Pillow and its libraries misread in silence: right numbers, or a failure with the right reason."""

import math
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from support.image_files import chunk, tiff
from support.pictures import encode, smooth

from transforms.images.decode import DecodeError, DecodePolicy, decode_image

PICTURE = smooth(40, 48)
GRAY = PICTURE[:, :, 0]
RAMP = np.linspace(0, 65535, 16 * 16).round().astype(np.uint16).reshape(16, 16)
INDICES = (np.arange(64).reshape(8, 8) % 4).astype(np.uint8)
COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 150, 0], [0, 0, 99]], np.uint8)
BGRX = b"".join(bytes((*colour[::-1], 0)) for colour in COLOURS.tolist())


def pixels(data: bytes) -> np.ndarray:
    return decode_image(data, DecodePolicy()).pixels


def notes(data: bytes, **policy: object) -> tuple[str, ...]:
    return decode_image(data, DecodePolicy(**policy)).notes


def reason(data: bytes) -> str:
    with pytest.raises(DecodeError) as failure:
        decode_image(data, DecodePolicy())
    assert failure.value.message
    return failure.value.reason


# ---- PNG ----


def png(
    chunks: dict[bytes, bytes], colour: int = 2, samples: np.ndarray = PICTURE, methods: bytes = b"\0\0\0"
) -> bytes:
    """A PNG of 8 bits with chunks before its pixels."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBB", width, height, 8, colour) + methods
    before = b"".join(chunk(kind, body) for kind, body in chunks.items())
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + end


def test_no_damaged_byte_of_a_png_is_missed():
    """A flipped bit can leave a stream that inflates to as many bytes; the sum of the chunk tells."""
    data = png({})
    start = data.index(b"IDAT") + 4
    for at in range(start, len(data) - 16, 5):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        assert reason(bytes(damaged)) == "corrupt"


def test_a_wrong_sum_over_the_pixels_of_a_png_is_damage():
    data = png({})
    at = data.index(b"IEND") - 8
    assert reason(data[:at] + bytes(4) + data[at + 4 :]) == "corrupt"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png({b"PLTE": COLOURS[:3].tobytes()}, 3, INDICES), "corrupt"),
        (png({}, 3, INDICES), "corrupt"),
        (png({b"CgBI": b"\x50\0\x20\2"}), "unsupported_mode"),
        (png({}, methods=b"\0\x40\0"), "unsupported_mode"),
        (png({b"gAMA": b"\0"}), "corrupt"),
        (png({b"sRGB": b""}), "corrupt"),
        (png({b"tRNS": bytes(5)}), "corrupt"),
        (png({})[:8] + chunk(b"tEXt", b"a\0b") + png({})[8:], "corrupt"),
    ],
    ids=["index beyond the palette", "no palette", "unknown critical chunk", "filter of MNG", "short gAMA",
         "short sRGB", "short tRNS", "late header"],
)  # fmt: skip
def test_a_png_that_pillow_would_guess_at_is_refused(data, expected):
    assert reason(data) == expected


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((1, 13, 0, 1), ()), ((1, 13, 0, 0), ("color_space",)), ((1, 13, 1, 1), ("color_space",))],
    ids=["full range", "narrow range", "YCbCr"],
)
def test_the_range_in_cicp(codes, expected):
    assert notes(png({b"cICP": bytes(codes)})) == expected


@pytest.mark.parametrize("late", [(b"tRNS", bytes(6)), (b"gAMA", struct.pack(">I", 100_000)), (b"iCCP", b"a\0\0")])
def test_chunks_behind_the_pixels_of_a_png_mean_nothing(late):
    picture = PICTURE.copy()
    picture[3] = 0
    data = png({}, samples=picture)
    end = data.index(b"IEND") - 4
    np.testing.assert_array_equal(pixels(data[:end] + chunk(*late) + data[end:]), picture)
    assert notes(data[:end] + chunk(*late) + data[end:]) == ()


def test_what_follows_the_end_of_a_png_is_not_read():
    np.testing.assert_array_equal(pixels(png({}) + chunk(b"ABCD", b"")), PICTURE)


# ---- TIFF ----


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


# ---- JPEG ----


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
        decode_image(b"\xff\xd8\xff\xf7\0\x0b\x08\0\x28\0\x30\1\1\x11\0", DecodePolicy())
    assert failure.value.reason == "unsupported_format"


# ---- GIF and BMP ----


def gif(colours: np.ndarray) -> bytes:
    """A GIF of `INDICES` with these colours."""
    data = encode(INDICES, "GIF")
    table = 3 << (data[10] & 7) + 1
    image = data[data.index(b",", 13 + table) :]
    flags = 0x80 | (len(colours).bit_length() - 2) if len(colours) else 0
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, flags, 0, 0) + colours.tobytes() + image


def test_numbers_beyond_the_colours_of_a_gif():
    np.testing.assert_array_equal(pixels(gif(COLOURS)), COLOURS[INDICES])
    assert reason(gif(COLOURS[:2])) == "corrupt"
    assert reason(gif(COLOURS[:0])) == "unsupported_mode"


def bmp(body: bytes, side: int, bits: int, compression: int = 0, table: bytes = b"", more: bytes = b"") -> bytes:
    """A BMP of side x side pixels; `more` lengthens the header."""
    fields = (40 + len(more), side, side, 1, bits, compression, len(body), 0, 0, len(table) // 4, 0)
    header = struct.pack("<IiiHHIIiiII", *fields) + more
    offset = 14 + len(header) + len(table)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + table + body


def test_an_index_beyond_the_palette_of_a_bmp():
    flipped = INDICES[::-1].tobytes()
    np.testing.assert_array_equal(pixels(bmp(flipped, 8, 8, table=BGRX)), COLOURS[INDICES])
    assert reason(bmp(flipped, 8, 8, table=BGRX[:12])) == "corrupt"


def test_odd_literal_runs_of_a_bmp():
    """Pillow loses the last pixel of each, and all that follow are shifted."""
    row = b"\0\3\x12\x30" + b"\0\5\x12\x31\x20\0" + b"\0\0"
    expected = COLOURS[np.array([[1, 2, 3, 1, 2, 3, 1, 2]] * 8)]
    np.testing.assert_array_equal(pixels(bmp(row * 8 + b"\0\1", 8, 4, 2, BGRX)), expected)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BODY = PICTURE[:40, :40][::-1, :, ::-1].tobytes()


def bmp_of_space(space: bytes, numbers: bytes = bytes(48), profile: bytes = b"") -> bytes:
    place = struct.pack("<IIII", 4, 124 + len(BODY), len(profile), 0)
    return bmp(BODY, 40, 24, more=bytes(16) + space + numbers + place) + profile


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bmp_of_space(b"BGRs"), ()),
        (bmp_of_space(bytes(4)), ()),
        (bmp_of_space(bytes(4), bytes([1] * 48)), ("color_space",)),
        (bmp_of_space(b"KNIL", profile=b"C:\\a.icc\0"), ("color_space",)),
        (bmp_of_space(b"DEBM", profile=SRGB), ()),
        (bmp_of_space(b"DEBM", profile=SRGB[:200]), ("icc_profile",)),
        (bmp_of_space(b"DEBM"), ("icc_profile",)),
    ],
    ids=["sRGB", "zeros", "calibrated", "linked", "embedded sRGB", "embedded, damaged", "embedded, not there"],
)
def test_colours_of_a_bmp_leave_a_note(data, expected):
    np.testing.assert_array_equal(pixels(data), PICTURE[:, :40])
    assert notes(data) == expected


def test_a_colour_map_of_a_tga_that_pillow_does_not_read_is_refused_as_such():
    header = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 4, 32, 0, 0, 8, 8, 8, 0)
    assert reason(header + BGRX + INDICES.tobytes()) == "unsupported_mode"


# ---- PNM ----


@pytest.mark.parametrize(
    ("header", "samples", "expected"),
    [
        (b"P6\r\n2 1\r\n255\r\n", bytes(range(1, 7)), [[[1, 2, 3], [4, 5, 6]]]),
        (b"P5\r\n1 2\r\n65535\r\n", b"\1\2\3\4", [[[258] * 3], [[772] * 3]]),
        (b"P4\r\n9 1\r\n", b"\xaa\x80", [[[0] * 3, [255] * 3] * 4 + [[0] * 3]]),
        (b"P5\n2 1\n255\r", b"\n\2", [[[10] * 3, [2] * 3]]),
    ],
)
def test_a_pnm_with_the_line_ends_of_windows(header, samples, expected):
    np.testing.assert_array_equal(pixels(header + samples), expected)


@pytest.mark.parametrize("data", [b"P5\n2 1\n100\n\x64\x65", b"P6\n1 1\n1000\n" + struct.pack(">HHH", 5, 1001, 0)])
def test_a_sample_beyond_the_maximum_of_a_pnm(data):
    assert reason(data) == "corrupt"


# ---- AVIF and JPEG 2000 ----


@pytest.mark.parametrize("brands", [b"mif1\0\0\0\0avif", b"mif1\0\0\0\0mif1miafavif", b"msf1\0\0\0\0avif"])
def test_an_avif_of_a_general_brand(brands):
    data = encode(PICTURE, "AVIF")
    whole = int.from_bytes(data[:4], "big")
    # The first box is as long as before, for places in the file follow it.
    named = data[:8] + (brands + b"mif1" * 20)[: whole - 8] + data[whole:]
    np.testing.assert_array_equal(pixels(named), pixels(data))


def test_xmp_does_not_turn_an_avif():
    data = encode(PICTURE, "AVIF", quality=100, subsampling="4:4:4", xmp=b"<x tiff:Orientation='6'/>")
    assert b"Orientation" in data
    assert (pixels(data).shape, notes(data)) == ((40, 48, 3), ())


def codestream(samples: np.ndarray, **options: object) -> bytes:
    data = encode(samples, "JPEG2000", no_jp2=True, **options)
    assert data.startswith(b"\xff\x4f\xff\x51")
    return data


def with_depth(data: bytes, depth: int) -> bytes:
    """The codestream with another depth, bits less one, of every component."""
    changed = bytearray(data)
    for n in range(int.from_bytes(data[40:42], "big")):
        changed[42 + 3 * n] = depth
    return bytes(changed)


@pytest.mark.parametrize("first", [0, 3, 8])
def test_a_missing_tile_of_a_jpeg_2000_is_truncated(first):
    data = codestream(PICTURE, tile_size=(16, 16))
    tiles = [at for at in range(len(data)) if data[at : at + 4] == b"\xff\x90\0\x0a"]
    assert len(tiles) == 9
    np.testing.assert_array_equal(pixels(data), PICTURE)
    end = tiles[first + 1] if first < 8 else len(data) - 2
    assert reason(data[: tiles[first]] + data[end:]) == "truncated"


@pytest.mark.parametrize(
    ("depth", "message"),
    [*((depth, "convert it to a PNG or TIFF of 16 bits") for depth in (8, 9, 11, 15)), (0x87, "signed samples")],
)
def test_colours_of_a_jpeg_2000_whose_white_would_be_black_are_refused(depth, message):
    with pytest.raises(DecodeError, match=message) as failure:
        decode_image(with_depth(codestream(PICTURE), depth), DecodePolicy())
    assert failure.value.reason == "unsupported_mode"


def boxed(data: bytes, *channels: tuple[int, int, int]) -> bytes:
    """A JPEG 2000 whose channels have these numbers, kinds and colours."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + kind + body

    header = box(b"ihdr", struct.pack(">IIHBBBB", 40, 48, len(channels), 7, 7, 0, 0))
    header += box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16))
    header += box(b"cdef", struct.pack(">H", len(channels)) + b"".join(struct.pack(">HHH", *c) for c in channels))
    start = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + box(b"jp2c", data)


RGB = ((0, 0, 1), (1, 0, 2), (2, 0, 3))
CLEAR = codestream(np.dstack([PICTURE, np.zeros((40, 48), np.uint8)]))


def test_channels_of_a_jpeg_2000():
    np.testing.assert_array_equal(pixels(boxed(codestream(PICTURE), *RGB)), PICTURE)
    assert (pixels(boxed(CLEAR, *RGB, (3, 1, 0))) == 255).all()
    for last in ((3, 2, 0), (3, 65535, 65535)):
        assert reason(boxed(CLEAR, *RGB, last)) == "unsupported_mode"
    assert reason(boxed(codestream(PICTURE), (0, 0, 3), (1, 0, 2), (2, 0, 1))) == "unsupported_mode"


def test_a_web_page_with_a_drawing_is_no_svg():
    assert reason(b"<!DOCTYPE html><html><body>404 <svg/></body></html>") == "unknown_format"
    assert reason(b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg/>') == "unsupported_format"
