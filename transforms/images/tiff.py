"""TIFF: its directory, read with care, and the layouts that Pillow must not be trusted with."""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

from PIL.ImageFile import ImageFile
from PIL.ImagePalette import raw
from PIL.TiffImagePlugin import COMPRESSION_INFO, TiffImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.jpeg import check_jpeg_stream
from transforms.images.missing_pixels import OnBackground, check_background
from transforms.images.png import SRGB_PRIMARIES, are_srgb_primaries

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_JPEG_TABLES = 347
_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES = 301, 318, 319
_FILL_ORDER, _SAMPLES, _PLANES, _COLOUR_MAP, _INKS, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 266, 277, 284, 320, 332, 338, 339
_BLACK_IS_ZERO, _YCBCR = 1, 6
_NO_COMPRESSION, _OLD_JPEG, _JPEG, _WEBP = 1, 6, 7, 50001
_DEFLATE = frozenset({8, 32946})
# Those of fax, in which white has always been zero.
_FAX = frozenset({2, 3, 4})
_REVERSED, _SEPARATE, _SIGNED, _CMYK_INKS = 2, 2, 2, 1
_UNSPECIFIED, _ASSOCIATED = 0, 1

# Bytes and layout of the field types. Fields of bytes may be long (profiles, XMP), tables of numbers are short.
_TYPES = {
    1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I",
    16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_MAX_TABLE_BYTES = 2**20
_INFLATED_BYTES = 2**20
# A tile may be larger than its image, but libtiff allocates it whole.
_MOST_TILE_PIXELS = 2**20


class TiffFile(OnBackground, TiffImageFile):
    """A TIFF on a background that Pillow neither turns nor reads sub-directories of."""

    def _setup(self) -> None:
        # One sample has no planes, whatever the tag says; Pillow would take the bits and the white of it for others.
        if self.tag_v2.get(_SAMPLES, 1) == 1:
            self.tag_v2.pop(_PLANES, None)
        super()._setup()

    def load_end(self) -> None:
        """Leave the pixels as they are stored."""
        self._size = self.im.size


def tiff_number(tiff: bytes, tag: int) -> int | None:
    """The first value of a tag in the first directory, whatever numeric type it has; None without the tag.

    Args:
        tiff: a TIFF, a BigTIFF or an EXIF block.
        tag: its number.

    Raises:
        struct.error: if this is no TIFF, or its data ends too early.
    """
    order = _byte_order(tiff)
    for number, kind, count, place in _directory(tiff):
        if number == tag and count and kind in _TYPES:
            layout = order + _TYPES[kind]
            if struct.calcsize(layout) * count <= len(place):
                first, *divisor = struct.unpack_from(layout, place)
            else:
                (at,) = struct.unpack(order + ("Q" if len(place) == 8 else "I"), place)
                first, *divisor = struct.unpack_from(layout, tiff, at)
            if divisor:
                return first // divisor[0] if divisor[0] else None
            return int(first)
    return None


def open_tiff(data: bytes) -> ImageFile:
    """Opens a TIFF.

    Refuses tags that claim more bytes than the file has, because Pillow copies each tag's, overlapping or not.

    Raises:
        DecodeError: `corrupt` or `unsupported_mode`.
    """
    fields = [(kind, struct.calcsize("=" + _TYPES.get(kind, "")) * count) for _, kind, count, _ in _directory(data)]
    tables = sum(size for kind, size in fields if kind not in _BYTE_TYPES)
    if sum(size for _, size in fields) > len(data) or tables > _MAX_TABLE_BYTES:
        raise DecodeError("corrupt", f"TIFF: the tags claim more bytes than fit in a file of {len(data)}.")
    compression = tiff_number(data, _COMPRESSION) or _NO_COMPRESSION
    if compression == _WEBP or compression not in COMPRESSION_INFO:
        raise DecodeError("unsupported_mode", f"TIFF: compression {compression}, which Pillow does not read.")
    plain_planes = compression == _NO_COMPRESSION and tiff_number(data, _PLANES) == _SEPARATE
    if plain_planes and tiff_number(data, _EXTRA_SAMPLES) in (_UNSPECIFIED, _ASSOCIATED):
        raise DecodeError(
            "unsupported_mode", "TIFF: plain planes whose last one is not opacity, or is multiplied into the colours."
        )
    image = TiffFile(BytesIO(data))
    image.info["exif"] = data  # an EXIF block is a TIFF, whose orientation lies in the first directory
    _check_layout(image, compression)
    tile = image.tag_v2.get(_TILE_WIDTH, 1) * image.tag_v2.get(_TILE_HEIGHT, 1)
    if tile > max(_MOST_TILE_PIXELS, 4 * image.width * image.height):
        raise DecodeError("corrupt", f"TIFF: tiles of {tile} pixels for an image of {image.width}x{image.height}.")
    if tiff_bits(image, data) == 16 and image.mode in ("RGB", "RGBA"):
        _keep_bytes_apart(image)
    colours = image.tag_v2.get(_COLOUR_MAP, ())
    if image.mode == "P" and max(colours) < 256:
        # Colours of 8 bits where 16 belong; libtiff takes them for what they are.
        image.palette = raw("RGB;L", bytes(colours))
    return image


def _check_layout(image: TiffFile, compression: int) -> None:
    """Refuses the layouts that Pillow misreads, and those without an agreed white.

    Raises:
        DecodeError: `unsupported_mode`.
    """
    tags = image.tag_v2
    bits, photometric = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_PHOTOMETRIC)
    plain = compression == _NO_COMPRESSION
    planes = plain and tags.get(_PLANES) == _SEPARATE
    found = ""
    if photometric is None and compression not in _FAX:
        found = "no tag says whether zero is black or white"
    elif image.mode.startswith("I;16") and (bits, photometric) != ((16,), _BLACK_IS_ZERO):
        found = f"gray of {bits} bits whose white Pillow does not know"
    elif image.mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED:
        found = "signed gray"
    elif plain and photometric == _YCBCR:
        found = "YCbCr without compression, which Pillow does not convert"
    elif image.mode == "CMYK" and tags.get(_INKS, _CMYK_INKS) != _CMYK_INKS:
        found = "four inks other than CMYK"
    elif planes and (tags.get(_FILL_ORDER) == _REVERSED or (image.mode == "CMYK" and max(bits) > 8)):
        found = "plain planes of reversed bits or of 16-bit CMYK, which Pillow misreads"
    if found:
        raise DecodeError("unsupported_mode", f"TIFF: {found}.")


def check_tiff(image: ImageFile, data: bytes, reopen: Callable[[], ImageFile]) -> None:
    """Finds missing strips and tiles, and damaged JPEG and Deflate data in them, all of which libtiff hides.

    Raises:
        DecodeError: `truncated` or `corrupt`.
    """
    assert isinstance(image, TiffFile)
    pieces = list(_pieces(image))
    if any(not offset or not size for offset, size in pieces):
        raise DecodeError("truncated", "TIFF: a strip or a tile of the image is not in the file.")
    check_background(image, data, reopen)
    compression = image.tag_v2.get(_COMPRESSION)
    if compression != _JPEG and compression not in _DEFLATE:
        return
    for n, (offset, size) in enumerate(pieces):
        stream = data[offset : offset + size]
        if len(stream) < size:
            raise DecodeError("truncated", f"TIFF: the compressed piece {n} of the image ends early.")
        if compression == _JPEG:
            _check_jpeg(image, n, stream)
        else:
            _check_deflate(image, n, stream)


def _check_jpeg(image: TiffFile, number: int, stream: bytes) -> None:
    tags = image.tag_v2
    width, height = image.size
    tables = bytes(tags.get(_JPEG_TABLES, b""))
    if tables:
        stream = tables[:-2] + stream[2:]
    # The planes of subsampled colours are smaller than the picture.
    expected = None
    if tags.get(_PLANES, 1) != _SEPARATE:
        rows = tags.get(_ROWS_PER_STRIP, height)
        is_tiled = _TILE_OFFSETS in tags
        expected = (tags[_TILE_WIDTH], tags[_TILE_HEIGHT]) if is_tiled else (width, min(rows, height - number * rows))
    check_jpeg_stream(stream, expected)


def _check_deflate(image: TiffFile, number: int, stream: bytes) -> None:
    """Inflates a strip or a tile to its checksum; libtiff stops before it, content with any bytes that are enough."""
    tags = image.tag_v2
    width, height = image.size
    if _TILE_OFFSETS in tags:
        pixels = tags[_TILE_WIDTH] * tags[_TILE_HEIGHT]
    else:
        pixels = width * min(tags.get(_ROWS_PER_STRIP, height), height)
    inflater = zlib.decompressobj()
    # No piece is longer, but a bomb is: libtiff does not unpack what follows.
    left = pixels * sum(tags.get(_BITS_PER_SAMPLE, (1,))) // 8 + _INFLATED_BYTES
    try:
        while stream and left > 0:
            left -= len(inflater.decompress(stream, _INFLATED_BYTES))
            stream = inflater.unconsumed_tail
    except zlib.error as error:
        raise DecodeError("corrupt", f"TIFF: the compressed piece {number} of the image: {error}.") from error
    if left > 0 and not inflater.eof:
        raise DecodeError("truncated", f"TIFF: the compressed piece {number} of the image ends early.")


def tiff_bits(image: ImageFile, _: bytes) -> int:
    """Bits per channel, from the tags."""
    assert isinstance(image, TiffImageFile)
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))


def tiff_notes(image: ImageFile, _: bytes) -> tuple[str, ...]:
    """`unchecked` for fax, of whose damage libtiff only warns, and old JPEG, whose parts lie all over the file.

    And `color_space` if tags, and no profile, say that the colours are not sRGB's: TIFF 6.0, section 20.
    """
    assert isinstance(image, TiffImageFile)
    tags = image.tag_v2
    notes = ("unchecked",) if tags.get(_COMPRESSION) in (_OLD_JPEG, *_FAX) else ()
    white, primaries = tags.get(_WHITE_POINT, SRGB_PRIMARIES[:2]), tags.get(_PRIMARIES, SRGB_PRIMARIES[2:])
    is_srgb = _TRANSFER_FUNCTION not in tags and are_srgb_primaries([float(value) for value in (*white, *primaries)])
    return notes if is_srgb or "icc_profile" in image.info else (*notes, "color_space")


def _byte_order(tiff: bytes) -> str:
    orders = {b"II": "<", b"MM": ">"}
    if tiff[:2] not in orders:
        raise struct.error(f"a TIFF does not begin with {tiff[:2]!r}")
    return orders[tiff[:2]]


def _directory(tiff: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Entries of the first directory: tag, type, count, and the field that holds the value or its place."""
    order = _byte_order(tiff)
    (version,) = struct.unpack_from(order + "H", tiff, 2)
    header, pointer, length, entry = (8, "Q", "Q", "HHQ8s") if version == 43 else (4, "I", "H", "HHI4s")
    (start,) = struct.unpack_from(order + pointer, tiff, header)
    (entries,) = struct.unpack_from(order + length, tiff, start)
    size = struct.calcsize(order + entry)
    if start + struct.calcsize(length) + size * entries > len(tiff):
        raise struct.error("the directory ends too early")
    return struct.iter_unpack(order + entry, tiff[start + struct.calcsize(order + length) :][: size * entries])


def _pieces(image: TiffFile) -> Iterator[tuple[int, int]]:
    """Offset and size of every strip or tile."""
    tags = image.tag_v2
    names = (_TILE_OFFSETS, _TILE_BYTES) if _TILE_OFFSETS in tags else (_STRIP_OFFSETS, _STRIP_BYTES)
    offsets, sizes = (tuple(tags.get(name, ())) for name in names)
    # Without sizes a strip ends where Pillow stops reading.
    return itertools.zip_longest(offsets, sizes[: len(offsets)], fillvalue=1)


def _keep_bytes_apart(image: TiffFile) -> None:
    """Asks for the bytes of 16-bit colours as they are, where Pillow would combine or confuse them."""
    order = "L" if image.tag_v2.prefix == b"II" else "B"
    for n, tile in enumerate(image.tile):
        assert isinstance(tile.args, tuple)
        raw_mode, *others = tile.args
        if raw_mode in ("R", "G", "B", "A"):
            raw_mode += f";16{order}"  # a plane, which Pillow takes for one of 8 bits
        elif "RGBa" in raw_mode:
            image.info["premultiplied"] = True
            raw_mode = raw_mode.replace("RGBa", "RGBA")
        image.tile[n] = tile._replace(args=(raw_mode, *others))
