"""The TFRecord container, whole and damaged."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from support import shards

from transforms.reading import byte_source, tfrecord_container
from transforms.reading.byte_source import PlainSource
from transforms.reading.tfrecord_container import (
    Span,
    compression,
    find_spans,
    is_tfrecord,
    masked_crc,
    open_source,
    read_data,
)

DATA = [bytes([i]) * (20 + 7 * i) for i in range(9)]
FRAMES = [shards.frame(data) for data in DATA]
POSITIONS = {"first": 0, "middle": 4, "last": 8}


def damage(kind: str, index: int) -> tuple[bytes, str, list[int]]:
    """The file with one kind of damage at one record; the reason it gets; the records that stay good."""
    frames = list(FRAMES)
    good = [i for i in range(len(frames)) if i != index]
    hit = bytearray(frames[index])
    if kind == "length":
        hit[0] ^= 1
    elif kind == "length_crc":
        hit[9] ^= 1
    elif kind == "huge_length":
        length = struct.pack("<Q", 1 << 40)
        hit[:12] = length + struct.pack("<I", masked_crc(length))
    elif kind == "beyond_the_end":
        length = struct.pack("<Q", 1 << 20)
        hit[:12] = length + struct.pack("<I", masked_crc(length))
    elif kind == "zeros":
        hit[:] = bytes(len(hit))
    elif kind == "gone":
        hit = hit[5:]
    frames[index] = bytes(hit)
    return b"".join(frames), "damaged_header", good


def spans_of(content: bytes) -> list[Span]:
    return list(find_spans(open_source(io.BytesIO(content))))


def good_data(content: bytes) -> list[bytes]:
    source = open_source(io.BytesIO(content))
    return [read_data(source, span)[0] for span in find_spans(source) if not span.reason]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("data", [[], [b""], [b"", b"x", b""], DATA])
def test_finds_every_record(pack, data):
    content = pack(b"".join(shards.frame(item) for item in data))
    assert good_data(content) == data
    assert [span.reason for span in spans_of(content)] == [""] * len(data)


def test_agrees_with_tensorflow(tmp_path):
    import tensorflow as tf

    for method in ("", "GZIP", "ZLIB"):
        path = tmp_path / f"by-tensorflow-{method}"
        with tf.io.TFRecordWriter(str(path), method) as writer:
            for data in DATA:
                writer.write(data)
        assert good_data(path.read_bytes()) == DATA


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["length", "length_crc", "huge_length", "zeros", "gone"])
def test_a_damaged_header_costs_one_record(pack, position, kind):
    content, reason, good = damage(kind, POSITIONS[position])
    spans = spans_of(pack(content))
    assert [span.reason for span in spans].count(reason) == 1
    assert len(spans) == len(DATA)
    assert good_data(pack(content)) == [DATA[i] for i in good]
    assert [spans[0].start, *(span.stop for span in spans)] == [
        0,
        *(span.start for span in spans[1:]),
        len(content),
    ]


@pytest.mark.parametrize(("position", "reason"), [("first", "damaged_header"), ("last", "truncated_record")])
def test_a_length_beyond_the_end_with_a_good_checksum(position, reason):
    content, _, good = damage("beyond_the_end", POSITIONS[position])
    assert [span.reason for span in spans_of(content) if span.reason] == [reason]
    assert good_data(content) == [DATA[i] for i in good]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("cut", [1, 4, 5, len(FRAMES[8]) - 12, len(FRAMES[8]) - 5, len(FRAMES[8]) - 1])
def test_a_truncated_tail_is_one_record(pack, cut):
    content = b"".join(FRAMES)[:-cut]
    assert [span.reason for span in spans_of(pack(content))] == [""] * 8 + ["truncated_record"]
    assert good_data(pack(content)) == DATA[:-1]


def test_neighbouring_damage_counts_once():
    frames = list(FRAMES)
    frames[3] = frames[4] = b"\xff" * 50
    spans = spans_of(b"".join(frames))
    assert [span.reason for span in spans] == [""] * 3 + ["damaged_header"] + [""] * 4
    assert "100 bytes from offset" in spans[3].message


def test_damaged_data_is_one_record_and_is_told():
    frames = list(FRAMES)
    frames[2] = frames[2][:15] + b"\xff" + frames[2][16:]
    source = PlainSource(io.BytesIO(b"".join(frames)))
    assert [read_data(source, span)[1] for span in find_spans(source)] == [i != 2 for i in range(9)]


def test_a_header_inside_damage_is_no_record_without_good_data():
    # Twelve bytes that are a valid header, followed by data of another checksum.
    decoy = shards.frame(b"decoy")[:-4] + b"\0\0\0\1"
    content = FRAMES[0] + b"\xff" * 30 + decoy + b"\xff" * 30 + FRAMES[1]
    assert good_data(content) == DATA[:2]
    assert len(spans_of(content)) == 3


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("junk", ["zeros", "small integers", "noise"])
def test_resynchronises_over_many_windows(monkeypatch, pack, junk):
    monkeypatch.setattr(tfrecord_container, "_WINDOW_BYTES", 4096)
    random = np.random.default_rng(0)
    between = {
        "zeros": bytes(50_000),
        "small integers": np.arange(6_000, dtype="<u8").tobytes(),
        "noise": random.bytes(50_001),
    }[junk]
    # Every position of the next record relative to the window's edge, in steps that meet them all.
    for extra in (0, 1, 5, 11, 12):
        content = FRAMES[0] + between + b"\xff" * extra + FRAMES[1] + FRAMES[2]
        assert good_data(pack(content)) == DATA[:3]


@pytest.mark.parametrize(
    ("breakage", "kept"),
    [("crc", 9), ("no trailer", 9), ("half", None), ("trailing junk", 9)],
)
@pytest.mark.parametrize(("pack", "trailer"), [(gzip.compress, 8), (zlib.compress, 4)], ids=["gzip", "zlib"])
def test_a_broken_stream_ends_in_one_damaged_record(pack, trailer, breakage, kept):
    random = np.random.default_rng(1)
    data = [random.bytes(40_000) for _ in range(9)]
    packed = pack(b"".join(map(shards.frame, data)))
    content = {
        "crc": packed[:-trailer] + b"\0\0\0\0" + packed[len(packed) - trailer + 4 :],
        "no trailer": packed[:-trailer],
        "half": packed[: len(packed) // 2],
        "trailing junk": packed + b"junk",
    }[breakage]
    reasons = [span.reason for span in spans_of(content)]
    good = good_data(content)
    assert reasons == [""] * len(good) + ["damaged_stream"]
    assert good == data[: len(good)]
    assert len(good) == (kept or 4)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_stream_broken_inside_keeps_what_came_before(pack):
    random = np.random.default_rng(2)
    data = [random.bytes(100_000) for _ in range(9)]
    packed = bytearray(pack(b"".join(map(shards.frame, data)), 0))
    packed[len(packed) // 2 : len(packed) // 2 + 70_000] = b"\xff" * 70_000
    good = good_data(bytes(packed))
    assert good == data[:4]
    assert [span.reason for span in spans_of(bytes(packed))] == [""] * 4 + ["damaged_stream"]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_stream_holds_no_more_than_a_record_and_a_block(pack):
    record = shards.frame(bytes(50_000))
    source = open_source(io.BytesIO(pack(record * 200)))
    most = 0
    for span in find_spans(source):
        read_data(source, span)
        most = max(most, len(source._unpacked))
    assert most < len(record) + 2 * byte_source._BLOCK_BYTES


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_stream_goes_forward_to_any_record(pack):
    source = open_source(io.BytesIO(pack(b"".join(FRAMES))))
    offset = sum(map(len, FRAMES[:5]))
    source.release(offset)
    assert [read_data(source, span)[0] for span in find_spans(source, offset)] == DATA[5:]


def test_a_plain_record_that_begins_like_gzip_is_plain():
    content = shards.frame(bytes(0x088B1F))
    assert content.startswith(tfrecord_container.GZIP_MAGIC)
    assert compression(io.BytesIO(content)) == ""
    assert len(good_data(content)) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (FRAMES[0], True),
        (gzip.compress(FRAMES[0], mtime=0), True),
        *((zlib.compress(FRAMES[0], level), True) for level in (0, 1, 6, 9)),
        (zlib.compress(b"text"), False),
        (b"", False),
        (b"PAR1" * 9, False),
        (gzip.compress(b"text", mtime=0), False),
    ],
)
def test_tells_tfrecord_by_content(content, expected):
    assert is_tfrecord(io.BytesIO(content)) is expected


def test_a_file_that_shrinks_is_an_error():
    file = io.BytesIO(b"".join(FRAMES))
    source = PlainSource(file)
    spans = find_spans(source)
    next(spans)
    file.truncate(len(FRAMES[0]) + 3)
    with pytest.raises(OSError, match="shorter"):
        list(spans)
