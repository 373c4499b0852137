"""The TFRecord container: find its records, even past damage, without TensorFlow.

A record is: length (8 bytes, little endian), masked CRC32C of the length (4), data, masked CRC32C of the data
(4) (tensorflow.org/tutorials/load_data/tfrecord). Offsets are those of the uncompressed stream.

Listing and reading both use `find_spans` to decide what a record is, so they count alike whatever the damage. It checks
lengths, not data: a record with damaged data is still one record and is found damaged when it is read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c
import numpy as np

from transforms.reading.byte_source import PackedSource, PlainSource, Source
from transforms.worker.memory import has_room

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size + _CRC.size
FRAME_BYTES = HEADER_BYTES + _CRC.size
# Protobuf's limit, which no Example exceeds.
MAX_DATA_BYTES = 2**31 - 1
GZIP_MAGIC = b"\x1f\x8b\x08"

# Longer records are skipped by their headers: two images of the default's most bytes take half of it.
MAX_RECORD_BYTES = 256 << 20

# Records from this size on are skipped if the process lacks room for them on their way into a table: as they lie in the
# file, unpacked, parsed, as an image, in the table, and in the bytes that the table is sent as.
_LARGE_BYTES, _COPIES = 4 << 20, 6

_WINDOW_BYTES = 4 << 20
# How many bytes of data are checked per window in search of a good record: beyond it, hostile headers would take time
# that grows with the square of their number.
_CHECKED_BYTES = 64 << 20


@dataclass(frozen=True)
class Span:
    """One record, or one damaged stretch that counts as one record.

    Attributes:
        start: offset of its first byte.
        stop: offset after its last byte.
        reason: empty for a record, else `long_record`, `out_of_memory`, `damaged_header`, `truncated_record` or
            `damaged_stream`.
        message: what is wrong with the stretch.
    """

    start: int
    stop: int
    reason: str = ""
    message: str = ""


def open_source(file: BinaryIO) -> PlainSource | PackedSource:
    """The uncompressed bytes of an opened file. Its content, not its name, tells how it is compressed."""
    kind = compression(file)
    file.seek(0)
    return PackedSource(file, kind) if kind else PlainSource(file)


def compression(file: BinaryIO) -> str:
    """Tell whether an opened file is `gzip` or `zlib`; empty if neither.

    A plain record of a certain length begins with the same bytes.
    """
    file.seek(0)
    head = file.read(HEADER_BYTES)
    if data_length(head) is not None:
        return ""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    # RFC 1950, section 2.2: deflate, a window of at most 32 KiB, no dictionary, and a sum that 31 divides.
    is_zlib = len(head) > 1 and head[0] & 15 == 8 and head[0] >> 4 <= 7 and not head[1] & 32
    return "zlib" if is_zlib and int.from_bytes(head[:2]) % 31 == 0 else ""


def is_tfrecord(file: BinaryIO) -> bool:
    """Tell whether the content of an opened file, compressed or not, begins with a record's header."""
    return data_length(open_source(file).at(0, HEADER_BYTES)) is not None


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC32C rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def data_length(header: bytes) -> int | None:
    """The number of data bytes that a header announces; None: it is damaged, cut short or impossible."""
    if len(header) < HEADER_BYTES:
        return None
    (length,) = _LENGTH.unpack_from(header)
    (crc,) = _CRC.unpack_from(header, _LENGTH.size)
    return length if crc == masked_crc(header[: _LENGTH.size]) and length <= MAX_DATA_BYTES else None


def find_spans(source: Source, offset: int = 0) -> Iterator[Span]:
    """Every record from `offset`, where one must begin, to the end of the stream, without a gap.

    Where no record fits, the stretch up to the next offset at which a header and the data after it both have
    good checksums, or up to the end, is one damaged span. A broken stream ends in one damaged span, if need
    be an empty one. A span's bytes can be read until the next span is asked for.
    """
    broken = False
    while source.reaches(offset + 1):
        source.release(offset)
        length = data_length(source.at(offset, HEADER_BYTES))
        end = offset + FRAME_BYTES + (length or 0)
        if length is not None and length > MAX_RECORD_BYTES:
            most = f"at most {MAX_RECORD_BYTES} are read"
            span = _skipped_span(source, offset, end, "long_record", most)
        elif length is not None and length >= _LARGE_BYTES and not has_room(_COPIES * length):
            least = "there is no room for them in memory; raise --max_record_memory"
            span = _skipped_span(source, offset, end, "out_of_memory", least)
        elif length is not None and source.reaches(end):
            span = Span(offset, end)
        else:
            span = _damaged_span(source, offset, length)
        broken = span.reason == "damaged_stream"
        yield span
        offset = span.stop
    if source.error and not broken:
        yield Span(offset, offset, "damaged_stream", f"{source.error} (offset {offset})")


def read_data(source: Source, span: Span) -> tuple[bytes, bool]:
    """The data of a good span, and True if its checksum is right."""
    frame = source.at(span.start, span.stop - span.start)
    data = frame[HEADER_BYTES : -_CRC.size]
    (crc,) = _CRC.unpack_from(frame, len(frame) - _CRC.size)
    return data, crc == masked_crc(data)


def frame(data: bytes) -> bytes:
    """The record that holds the data."""
    length = _LENGTH.pack(len(data))
    return length + _CRC.pack(masked_crc(length)) + data + _CRC.pack(masked_crc(data))


def _skipped_span(source: Source, offset: int, end: int, reason: str, message: str) -> Span:
    stop = source.skip(end)
    if stop == end:
        return Span(offset, end, reason, f"{end - offset} bytes; {message}")
    where = f"{stop - offset} bytes from offset {offset} on"
    if source.error:
        return Span(offset, stop, "damaged_stream", f"{source.error} ({where})")
    return Span(offset, stop, "truncated_record", f"the file ends inside a record ({where})")


def _damaged_span(source: Source, offset: int, length: int | None) -> Span:
    stop, found = _resynchronise(source, offset + 1)
    where = f"{stop - offset} bytes from offset {offset} on"
    if not found and source.error:
        return Span(offset, stop, "damaged_stream", f"{source.error} ({where})")
    if not found and (length is not None or stop - offset < HEADER_BYTES):
        return Span(offset, stop, "truncated_record", f"the file ends inside a record ({where})")
    problem = "no valid record header" if length is None else f"a record of {length} bytes that does not fit"
    return Span(offset, stop, "damaged_header", f"{problem} ({where} are skipped)")


def _resynchronise(source: Source, offset: int) -> tuple[int, bool]:
    """Find the first whole good record from `offset` on: its offset and True, or the end of the stream and False."""
    while True:
        source.release(offset)
        window = source.at(offset, _WINDOW_BYTES)
        checked = 0
        for candidate in _find_headers(window):
            if checked < _CHECKED_BYTES and _is_whole_record(source, offset + candidate):
                return offset + candidate, True
            checked += data_length(window[candidate : candidate + HEADER_BYTES]) or 0
        if not source.reaches(offset + len(window) + 1):
            return offset + len(window), False
        offset += len(window) - HEADER_BYTES + 1


def _is_whole_record(source: Source, offset: int) -> bool:
    length = data_length(source.at(offset, HEADER_BYTES))
    if length is None or length > MAX_RECORD_BYTES or not source.reaches(offset + FRAME_BYTES + length):
        return False
    return read_data(source, Span(offset, offset + FRAME_BYTES + length))[1]


def _find_headers(window: bytes) -> list[int]:
    """The offsets in `window` at which twelve bytes are a valid header, ascending.

    The upper half of a length is zero, which leaves few offsets to look at. Checksums are computed once per distinct
    length, so that a stretch of zeros costs no more.
    """
    data = np.frombuffer(window, np.uint8)
    count = max(0, len(data) - HEADER_BYTES + 1)
    zero = data == 0
    upper = zero[4 : 4 + count] & zero[5 : 5 + count] & zero[6 : 6 + count] & zero[7 : 7 + count]
    offsets = np.flatnonzero(upper)
    lengths, sums = _uint32_at(window, offsets), _uint32_at(window, offsets + _LENGTH.size)
    good = (lengths == 0) & (sums == masked_crc(bytes(_LENGTH.size)))
    some = np.flatnonzero(lengths)
    distinct, which = np.unique(lengths[some], return_inverse=True)
    expected = np.array([masked_crc(_LENGTH.pack(length)) for length in distinct.tolist()], np.uint32)
    good[some] = expected[which] == sums[some]
    return offsets[good].tolist()


def _uint32_at(window: bytes, offsets: np.ndarray) -> np.ndarray:
    """The little-endian uint32 at each offset, aligned or not."""
    everywhere = np.ndarray((max(0, len(window) - 3),), "<u4", window, strides=(1,))
    return everywhere[offsets]
