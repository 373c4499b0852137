"""No silent wrong number: orientation, bits, colour keys, colours, backgrounds and formats, each with its note."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from support.image_files import chunk
from support.pictures import encode, noise, smooth

from transforms.images.decode import NOTES, DecodeError, DecodePolicy, decode_image

tifffile = pytest.importorskip("tifffile")
POLICY = DecodePolicy()
PICTURE = smooth(40, 48)
RGB16 = noise(3, 40, 48, np.uint16)
RGBA16 = np.dstack([RGB16, noise(4, 40, 48, np.uint16)[:, :, 0]])


def decoded(data: bytes, **policy: object) -> tuple[np.ndarray, tuple[str, ...]]:
    image = decode_image(data, DecodePolicy(**policy))
    assert set(image.notes) <= NOTES.keys()
    return image.pixels, image.notes


def png(samples: np.ndarray, depth: int, colour: int, *chunks: tuple[bytes, bytes], width: int = 0) -> bytes:
    """A PNG of rows of samples, packed already below 8 bits, with more chunks."""
    header = struct.pack(">IIBBBBB", width or samples.shape[1], len(samples), depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in samples)
    extra = b"".join(chunk(kind, body) for kind, body in chunks)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + end


def tiff(samples: np.ndarray, **options: object) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, samples, photometric=options.pop("photometric", "rgb"), **options)
    return file.getvalue()


# ---- Orientation ----


def exif(layout: str, kind: int, order: str, prefix: bytes = b"Exif\0\0") -> bytes:
    magic = b"MM\0*" if order == ">" else b"II*\0"
    values = (6, 1) if layout in ("II", "ii") else (6,)
    value = struct.pack(order + layout, *values)
    place = struct.pack(order + "I", 26) if len(value) > 4 else value.ljust(4, b"\0")
    entry = struct.pack(order + "HHI", 274, kind, 1) + place
    return prefix + magic + struct.pack(order + "IH", 8, 1) + entry + bytes(4) + value


TYPES = {"BYTE": ("B", 1), "SHORT": ("H", 3), "LONG": ("I", 4), "RATIONAL": ("II", 5), "SLONG": ("i", 9),
         "DOUBLE": ("d", 12)}  # fmt: skip
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description tiff:Orientation=%s</x:xmpmeta>"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_orientation_of_every_type_and_byte_order(format, name, order):
    lossless = {"WEBP": {"lossless": True}}.get(format, {})
    data = encode(PICTURE, format, exif=exif(*TYPES[name], order), **lossless)
    pixels, notes = decoded(data)
    np.testing.assert_array_equal(pixels, np.rot90(decoded(encode(PICTURE, format, **lossless))[0], -1))
    assert notes == ("exif_rotated",)


@pytest.mark.parametrize("key", ["Raw profile type exif", "Raw profile type APP1"])
def test_orientation_in_a_raw_profile(key):
    info, block = PngImagePlugin.PngInfo(), exif("H", 3, ">")
    info.add_text(key, f"\nexif\n{len(block):8d}\n{block.hex()}\n", zip=True)
    np.testing.assert_array_equal(decoded(encode(PICTURE, pnginfo=info))[0], np.rot90(PICTURE, -1))


def test_orientation_behind_a_prefix_too_many():
    data = png(PICTURE.reshape(40, -1), 8, 2, (b"eXIf", exif("H", 3, "<")), width=48)
    np.testing.assert_array_equal(decoded(data)[0], np.rot90(PICTURE, -1))


@pytest.mark.parametrize("form", [b'"6"', b"'6'"])
def test_orientation_in_xmp(form):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", (XMP % form).decode(), zip=True)
    assert decoded(encode(PICTURE, pnginfo=info))[1] == ("exif_rotated",)
    pixels, notes = decoded(encode(PICTURE, "JPEG", xmp=XMP % form))
    assert (pixels.shape, notes) == ((48, 40, 3), ("exif_rotated",))
    # EXIF takes precedence.
    assert decoded(encode(PICTURE, "JPEG", xmp=XMP % form, exif=exif("H", 3, "<").replace(b"\6\0", b"\1\0")))[1] == ()


# ---- Bits and colour keys ----


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True},
                                     {"planarconfig": "separate"}], ids=str)  # fmt: skip
def test_16_bits_of_a_tiff_are_kept(options, order):
    planes = np.moveaxis(RGB16, 2, 0).copy() if "planarconfig" in options else RGB16
    pixels, notes = decoded(tiff(planes, byteorder=order, **options))
    np.testing.assert_array_equal(pixels, RGB16)
    assert (pixels.dtype, notes) == (np.dtype(np.uint16), ("16bit",))


def test_compressed_planes_of_16_bits_leave_a_note():
    data = tiff(np.moveaxis(RGB16, 2, 0).copy(), planarconfig="separate", compression="zlib")
    pixels, notes = decoded(data)
    np.testing.assert_array_equal(pixels, RGB16 >> 8)
    assert notes == ("bits_reduced",)


def on(background: int, samples: np.ndarray) -> np.ndarray:
    """Samples of 16 bits on gray, [H, W, 3], in float64."""
    opacity = samples[:, :, -1:] / 65535
    return samples[:, :, :-1] * opacity + background * 257 * (1 - opacity) + np.zeros(3)


@pytest.mark.parametrize(("background", "gray"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_16_bits_with_opacity_are_composited_on_the_background(background, gray):
    files = {
        "png": (png(RGBA16.reshape(40, -1), 16, 6, width=48), RGBA16),
        "png gray": (png(RGBA16[:, :, 2:].reshape(40, -1), 16, 4, width=48), RGBA16[:, :, 2:]),
        "tiff": (tiff(RGBA16, extrasamples=["unassalpha"]), RGBA16),
    }
    for name, (data, samples) in files.items():
        pixels, notes = decoded(data, background=background)
        np.testing.assert_allclose(pixels, on(gray, samples), atol=0.51, err_msg=name)
        assert notes == (("16bit", "gray", "alpha") if "gray" in name else ("16bit", "alpha"))


def test_premultiplied_16_bits():
    opacity = np.full((40, 48, 1), 32768, np.uint16)
    data = tiff(np.dstack([RGB16 // 2, opacity]), extrasamples=["assocalpha"])
    pixels, _ = decoded(data, background="black")
    np.testing.assert_allclose(pixels, RGB16 // 2, atol=1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_transparent_gray_of_every_depth(depth):
    values = np.arange(64).reshape(8, 8) % (1 << depth)
    bits = (values[:, :, np.newaxis] >> np.arange(depth)[::-1] & 1).reshape(8, -1)
    key = (1 << depth) - 1 if depth == 1 else 2
    data = png(np.packbits(bits, axis=1), depth, 0, (b"tRNS", struct.pack(">H", key)), width=8)
    scaled = values * 255 // ((1 << depth) - 1)
    pixels, notes = decoded(data, background="#0a0a0a")
    np.testing.assert_array_equal(pixels[:, :, 0], np.where(values == key, 10, scaled))
    assert notes == ("gray", "alpha")


def test_the_transparent_colour_of_16_bits_is_compared_at_16_bits():
    samples = np.full((4, 4, 3), 0x1234, np.uint16)
    samples[0, 0] = 0x1235
    key = struct.pack(">HHH", 0x1235, 0x1235, 0x1235)
    pixels, notes = decoded(png(samples.reshape(4, -1), 16, 2, (b"tRNS", key), width=4))
    assert (pixels[0, 0] == 65535).all()
    assert (pixels[1:] == 0x1234).all()
    assert notes == ("16bit", "alpha")


# ---- Colours ----


def linear_srgb() -> bytes:
    """A profile that calls itself sRGB and is linear: its tone curves are replaced."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        if profile[at : at + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            start = int.from_bytes(profile[at + 4 : at + 8], "big")
            profile[start : start + 12] = b"curv" + bytes(8)
            profile[at + 8 : at + 12] = struct.pack(">I", 12)
    return bytes(profile)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_profile_is_judged_by_its_colours(format):
    profile = linear_srgb()
    assert b"s\0R\0G\0B" in profile or b"sRGB" in profile
    data = encode(PICTURE, format, icc_profile=profile)
    pixels, notes = decoded(data)
    np.testing.assert_array_equal(pixels, PICTURE)
    assert notes == ("icc_profile",)
    pixels, notes = decoded(data, color="convert")
    source, target = (ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"))
    expected = ImageCms.profileToProfile(Image.fromarray(PICTURE), source, target)
    np.testing.assert_array_equal(pixels, np.asarray(expected))
    assert notes == ("icc_converted",)


def test_an_unreadable_profile_is_not_applied():
    assert decoded(encode(PICTURE, icc_profile=b"rubbish"), color="convert")[1] == ("icc_profile",)


@pytest.mark.parametrize(
    ("chunks", "notes"),
    [
        ([(b"gAMA", struct.pack(">I", 45455))], ()),
        ([(b"gAMA", struct.pack(">I", 100000))], ("color_space",)),
        ([(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")], ()),
        ([(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))], ("color_space",)),
        ([(b"cICP", bytes((9, 16, 0, 1)))], ("color_space",)),
        ([(b"cICP", bytes((1, 13, 0, 1)))], ()),
    ],
)
def test_colours_of_a_png_that_are_not_converted_leave_a_note(chunks, notes):
    assert decoded(png(PICTURE.reshape(40, -1), 8, 2, *chunks, width=48))[1] == notes


@pytest.mark.parametrize("background", ["white", "black", "#0a6Ef0"])
def test_the_background(background):
    opacity = np.where(np.arange(48) < 9, 0, 255) * np.ones((40, 1))
    data = encode(np.dstack([PICTURE, opacity]).astype(np.uint8))
    pixels, notes = decoded(data, background=background)
    expected = {"white": (255, 255, 255), "black": (0, 0, 0), "#0a6Ef0": (10, 110, 240)}[background]
    assert (pixels[:, :9] == expected).all()
    np.testing.assert_array_equal(pixels[:, 9:], PICTURE[:, 9:])
    assert notes == ("alpha",)


@pytest.mark.parametrize("wrong", [{"background": "blue"}, {"background": "#12345"}, {"color": "srgb"}])
def test_a_wrong_policy_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DecodePolicy(**wrong)


@pytest.mark.parametrize("format", ["BMP", "TGA"])
def test_opacity_of_zeros_in_a_format_that_may_lack_it(format):
    """A BMP of 32 bits with masks, whose writer left the fourth byte zero."""
    clear = np.dstack([PICTURE, np.zeros((40, 48), np.uint8)])
    data = encode(clear, format)
    if format == "BMP":
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 108, 48, -40, 1, 32, 3, 0, 0, 0, 0, 0) + masks + bytes(52)
        body = clear[:, :, [2, 1, 0, 3]].tobytes()
        data = b"BM" + struct.pack("<IHHI", 122 + len(body), 0, 0, 122) + header + body
    pixels, notes = decoded(data)
    np.testing.assert_array_equal(pixels, PICTURE)
    assert notes == ("alpha_ignored",)


# ---- Metadata and formats ----


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
def test_large_metadata_is_no_reason_to_refuse_pixels(kind):
    large = zlib.compress(bytes(2**21))
    body = {b"tEXt": b"a\0" + b"x" * 2**21, b"iTXt": b"a\0\1\0\0\0" + large}.get(kind, b"a\0\0" + large)
    pixels, notes = decoded(png(PICTURE.reshape(40, -1), 8, 2, (kind, body), width=48))
    np.testing.assert_array_equal(pixels, PICTURE)
    assert notes == (("icc_profile",) if kind == b"iCCP" else ())


def test_a_large_comment_of_a_gif_is_skipped():
    data = encode(PICTURE, "GIF")
    at = data.index(b",", 13 + 768)
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * 20_000 + b"\0"
    np.testing.assert_array_equal(decoded(data[:at] + comment + data[at:])[0], decoded(data)[0])


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "PPM", "TGA"])
def test_formats_that_pillow_reads(format):
    data = encode(PICTURE, format)
    pixels, notes = decoded(data)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(BytesIO(data)).convert("RGB")))
    assert notes == ()


def test_bigtiff():
    np.testing.assert_array_equal(decoded(tiff(PICTURE, bigtiff=True))[0], PICTURE)


@pytest.mark.parametrize("most", [255, 100, 1023, 65535])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_pnm_of_every_maximum(kind, most):
    samples = np.random.default_rng(1).integers(0, most + 1, (5, 7, 3 if kind == b"P6" else 1))
    data = kind + b"\n7 5\n%d\n" % most + samples.astype(">u2" if most > 255 else np.uint8).tobytes()
    pixels, notes = decoded(data)
    top = 65535 if most > 255 else 255
    np.testing.assert_array_equal(pixels, np.rint(samples / most * top) + np.zeros(3))
    assert notes == (("16bit",) if most > 255 else ()) + (("gray",) if kind == b"P5" else ())


@pytest.mark.parametrize("bits", [16])
def test_jpeg_2000_of_gray(bits):
    pixels, notes = decoded(encode(RGB16[:, :, 0].copy(), "JPEG2000"))
    np.testing.assert_array_equal(pixels[:, :, 1], RGB16[:, :, 0])
    assert notes == ("16bit", "gray")


def test_ycbcr_that_pillow_takes_for_rgb_is_refused():
    with pytest.raises(DecodeError) as failure:
        decode_image(tiff(PICTURE, photometric="ycbcr") + bytes(10_000), POLICY)
    assert failure.value.reason == "unsupported_mode"
