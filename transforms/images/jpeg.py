"""JPEG: decoded by simplejpeg, which gives Pillow's pixels, and checked for damage that libjpeg only warns of."""

import math
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from transforms.images.decode_error import DecodeError

if TYPE_CHECKING:
    from transforms.images.jpeg_entropy import HuffmanTables

_TABLES, _END, _SCAN, _STEPS, _RESTART = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
# A marker: inside of data, 0xff is followed by 0 or a restart marker, and before a marker it may be repeated.
_MARKER = re.compile(rb"\xff([^\0\x01\xff\xd0-\xd8])")
_RESTARTS = re.compile(rb"\xff+[\xd0-\xd7]")
# Markers of JFIF and of metadata, except Adobe's, which describes the colours.
_JFIF = 0xE0
_APPLICATIONS = frozenset(range(0xE1, 0xF0)) - {0xEE}
# Warnings of libjpeg that are not about pixels.
_METADATA = ("bad ICC marker",)
# Ten scans are usual; an empty one takes as long as a full one.
_MOST_SCANS, _MOST_SEGMENTS = 100, 10_000
# Between segments there may be padding; Pillow walks it byte by byte.
_MOST_PADDING = 1 << 16
# Those of which TurboJPEG decodes fewer kinds than libjpeg.
_UNUSUAL = ("could not determine subsampling", "unsupported color conversion")
_RAN_OUT = ("premature end", "found marker 0xd9 instead")
# The first bytes of a JPEG, and of a TIFF, which may hold JPEG data.
_WITH_JPEG = (b"\xff\xd8", b"II", b"MM")


class _UnusualLayoutError(DecodeError):
    """A JPEG that libjpeg, and so Pillow, may decode although TurboJPEG does not."""


class JpegFile(JpegImageFile):
    """A JPEG whose EXIF block Pillow leaves alone: it would read every tag, just for the resolution.

    Attributes:
        segments: markers with their segments and the coded data behind these.
        unchecked: whether the data cannot be checked for damage.
    """

    segments: "Sequence[_Segment]" = ()
    unchecked = False

    def _open(self) -> None:
        self.info["dpi"] = (72, 72)
        super()._open()


def may_hold_jpeg(data: Any) -> bool:
    """True for the bytes, or a buffer of them, of a file whose pixels may be JPEG data."""
    return bytes(data[:2]) in _WITH_JPEG


def open_jpeg(data: bytes) -> ImageFile:
    """Opens a JPEG.

    Raises:
        DecodeError: `corrupt`, for scans, segments or padding of which no picture has so much, which would take hours.
    """
    segments = _split(data)
    image = JpegFile(BytesIO(data))
    image.segments = segments
    return image


def load_jpeg(image: ImageFile, data: bytes, _: Callable[[], ImageFile]) -> np.ndarray | Image.Image:
    """Decodes a JPEG.

    Args:
        image: as `open_jpeg` opened it.
        data: the file.

    Returns:
        RGB pixels [H, W, 3] uint8, of gray pictures too; an image of mode CMYK.

    Raises:
        DecodeError: `truncated`, `corrupt` or `unsupported_mode`.
    """
    assert isinstance(image, JpegFile)
    try:
        pixels = _decode_strictly(data, image.segments, "CMYK" if image.mode == "CMYK" else "RGB")
    except _UnusualLayoutError:
        image.load()
        image.unchecked = not _check_data(image.segments)
        return image if image.mode == "CMYK" else np.asarray(image.convert("RGB"))
    if pixels.shape[1::-1] != image.size:
        raise DecodeError("corrupt", f"JPEG: two headers, of {image.size} and {pixels.shape[1::-1]} pixels.")
    image.unchecked = not _check_data(image.segments)
    if image.mode == "CMYK":
        # Pillow takes every CMYK JPEG for an inverted one of Adobe's.
        return Image.frombytes("CMYK", image.size, np.invert(pixels).tobytes())
    return pixels


def jpeg_notes(image: ImageFile, _: bytes) -> tuple[str, ...]:
    """`unchecked` if the data could not be checked for damage."""
    assert isinstance(image, JpegFile)
    return ("unchecked",) if image.unchecked else ()


def check_jpeg_stream(data: bytes, size: tuple[int, int] | None) -> bool:
    """Checks JPEG data inside another file.

    Args:
        data: the JPEG with its tables.
        size: the width and the height that it has to cover; None: any.

    Returns:
        whether this kind of JPEG can be checked.

    Raises:
        DecodeError: `truncated`, `corrupt` or `unsupported_mode`.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except ValueError as error:
        reason = "unsupported_mode" if _UNUSUAL[0] in str(error).lower() else "corrupt"
        raise DecodeError(reason, f"JPEG: {error}.") from error
    if size and (width < size[0] or height < size[1]):
        raise DecodeError("truncated", f"JPEG: {width}x{height} pixels, where {size[0]}x{size[1]} are needed.")
    # An eighth of the size: all of the data is read, hardly a pixel computed.
    segments = _split(data)
    _decode_strictly(data, segments, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY", min_factor=8)
    return _check_data(segments)


def _decode_strictly(data: bytes, segments: "Sequence[_Segment]", colours: str, min_factor: int = 1) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, colours, min_factor=min_factor, strict=True)
    except ValueError as error:
        message = str(error)
        if message.endswith(_METADATA) or "JFIF revision" in message:
            plain = _without_metadata(segments)
            if plain != data:
                return _decode_strictly(plain, segments, colours, min_factor)
        ran_out = any(words in message.lower() for words in _RAN_OUT)
        unsupported = "unsupported" in message.lower() or "not implemented" in message
        if any(words in message.lower() for words in _UNUSUAL):
            raise _UnusualLayoutError("unsupported_mode", f"JPEG: {message}.") from error
        reason = "truncated" if ran_out else "unsupported_mode" if unsupported else "corrupt"
        raise DecodeError(reason, f"JPEG: {message}.") from error


def _without_metadata(segments: "Sequence[_Segment]") -> bytes:
    """The JPEG without what is not pixels, and with a version of JFIF that libjpeg knows."""
    file = [b"\xff\xd8"]
    for marker, body, coded in segments:
        if marker == _JFIF and body.startswith(b"JFIF\0"):
            body = body[:5] + b"\1\1" + body[7:]
        if marker not in _APPLICATIONS:
            file += [bytes((0xFF, marker)), (len(body) + 2).to_bytes(2, "big"), body, coded]
    return b"".join((*file, b"\xff\xd9"))


def _check_data(segments: "Sequence[_Segment]") -> bool:
    """Checks that the scans bring every coefficient of every component to its last bit, in sound codes.

    libjpeg takes coefficients that never came for zeros, without a warning. Layout: ITU-T T.81, annex B and G.1.1.

    Returns:
        whether this kind of JPEG can be checked: not if it is lossless, hierarchical or arithmetic-coded.

    Raises:
        DecodeError: `truncated` or `corrupt`.
    """
    # Here, because numba is slow to import, and whoever only reads the flags needs none of it.
    from transforms.images.jpeg_entropy import HuffmanTables

    frame: _Frame | None = None
    tables, steps, restart = HuffmanTables(), np.ones((4, 64), np.int64), 0
    for marker, body, coded in segments:
        if marker in _FRAMES:
            if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
                return False
            frame = _Frame(body, marker == _PROGRESSIVE)
        elif marker == _TABLES:
            while body:
                total = sum(body[1:17])
                tables.define((body[0] & 3) + (body[0] >> 2 & 4), body[1:17], body[17 : 17 + total])
                body = body[17 + total :]
        elif marker == _STEPS:
            while body:
                wide = body[0] >> 4 > 0
                size = 129 if wide else 65
                steps[body[0] & 3] = np.frombuffer(body[1:size], ">u2" if wide else np.uint8)
                body = body[size:]
        elif marker == _RESTART:
            restart = int.from_bytes(body[:2], "big")
        elif marker == _SCAN and frame:
            frame.check_scan(body, coded, restart, tables, steps)
    lacking = frame.lacking() if frame else 1
    if lacking:
        raise DecodeError("truncated", f"JPEG: scans are missing; {lacking} coefficients lack bits.")
    return True


_Segment = tuple[int, bytes, bytes]


def _split(data: bytes) -> list[_Segment]:
    """Markers with their segments and with the coded data behind these, up to the end of the image.

    Raises:
        DecodeError: `corrupt`, for too many of them.
    """
    segments: list[_Segment] = []
    scans = 0
    found = _MARKER.search(data, 2)
    padding = (found.start() if found else len(data)) - 2
    while found and data[found.start() + 1] != _END:
        start, at = found.start(), found.end()
        end = at + int.from_bytes(data[at : at + 2], "big")
        found = _MARKER.search(data, end)
        segments.append((data[start + 1], data[at + 2 : end], data[end : found.start() if found else len(data)]))
        scans += segments[-1][0] == _SCAN
        padding += 0 if scans else len(segments[-1][2])
        if padding > _MOST_PADDING:
            raise DecodeError("corrupt", f"JPEG: more than {_MOST_PADDING} bytes between its segments.")
        if scans > _MOST_SCANS or len(segments) > _MOST_SEGMENTS:
            raise DecodeError("corrupt", f"JPEG: more than {_MOST_SCANS} scans or {_MOST_SEGMENTS} segments.")
    return segments


class _Frame:
    """The components of a picture, and what has come of their coefficients."""

    def __init__(self, header: bytes, progressive: bool) -> None:
        self.progressive = progressive
        self.height, self.width = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
        ends = range(6, 6 + 3 * header[5], 3)
        components = [(header[at], header[at + 1] >> 4, header[at + 1] & 15) for at in ends]
        self.steps = {header[at]: header[at + 2] & 3 for at in ends}
        self.across, self.down = max(h for _, h, _ in components), max(v for _, _, v in components)
        self.columns, self.rows = _blocks(self.width, self.across), _blocks(self.height, self.down)
        blocks = 0
        # By the component's name: blocks across and down in an MCU, in a row, and the number of the first.
        self.layout: dict[int, tuple[int, int, int, int]] = {}
        for name, across, down in components:
            self.layout[name] = (across, down, self.columns * across, blocks)
            blocks += self.columns * across * self.rows * down
        self.nonzero = np.zeros(blocks if progressive else 1, np.uint64)
        # The bits that each coefficient lacks; all of them count as one.
        self.missing = {name: np.ones(64, np.int64) for name in self.layout}

    def lacking(self) -> int:
        """Number of coefficients that did not come to their last bit."""
        return int(sum(np.count_nonzero(bits) for bits in self.missing.values()))

    def check_scan(self, header: bytes, data: bytes, restart: int, tables: "HuffmanTables", steps: np.ndarray) -> None:
        """Checks the data of a scan, a piece between two restart markers at a time.

        Raises:
            DecodeError: `truncated` or `corrupt`.
        """
        from transforms.images.jpeg_entropy import BROKEN, MARGIN, RAN_OUT, SOUND, walk

        count = header[0]
        names = [name for name in header[1 : 1 + 2 * count : 2] if name in self.layout]
        first, last, bits = header[1 + 2 * count :][:3] if self.progressive else (0, 63, 0)
        if len(names) != count or not first <= last < 64:
            raise DecodeError("corrupt", "JPEG: a scan of components or coefficients that there are not.")
        for name in names:
            self.missing[name][first : last + 1] = bits & 15
        used = zip(header[2 : 2 + 2 * count : 2], (self.layout[name] for name in names), strict=True)
        components = [(table >> 4 & 3, 4 + (table & 3), *layout) for table, layout in used]
        columns, rows = self.columns, self.rows
        if count == 1:
            # A component by itself is not padded to whole MCUs.
            dc, ac, across, down, stride, place = components[0]
            columns = _blocks(self.width * across, self.across)
            rows = _blocks(self.height * down, self.down)
            components = [(dc, ac, 1, 1, stride, place)]
        layout = np.array(components, np.int64)
        used_steps = steps[[self.steps[name] for name in names]]
        start, mcus = 0, columns * rows
        for piece in _RESTARTS.split(data) if restart else [data]:
            stop = min(start + (restart or mcus), mcus)
            plain = piece.replace(b"\xff\0", b"\xff")
            padded = np.frombuffer(plain + bytes(MARGIN), np.uint8)
            settings = (
                layout,
                used_steps,
                columns,
                first,
                last,
                bits >> 4 > 0,
                bits & 15,
                self.progressive,
                self.nonzero,
            )
            outcome, read = walk(padded, start, stop, *settings, *tables.arrays)
            if outcome == SOUND and (start == stop or plain[(read + 7) // 8 :].strip(b"\0\xff")):
                outcome = BROKEN
            if outcome != SOUND:
                reason = "truncated" if outcome == RAN_OUT else "corrupt"
                raise DecodeError(reason, f"JPEG: a scan is damaged between its MCUs {start} and {stop} of {mcus}.")
            start = stop
        if start < mcus:
            raise DecodeError("truncated", f"JPEG: a scan ends at MCU {start} of {mcus}.")


def _blocks(samples: int, divisor: int) -> int:
    """Blocks of 8 that hold samples / divisor samples."""
    return math.ceil(math.ceil(samples / divisor) / 8)
