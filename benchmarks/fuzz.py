"""Mutate images and input files, and put them through the sandbox: is every record scored, or a failure with a reason?

    python -m benchmarks.fuzz --images=1000000 --files=100000 --seed=1

A mutant is made of the seed, its kind and its number alone: `--only=AVIF --first=4711 --images=1` makes it again. The
exit code is 1 if a record was lost, if something raised an error that no failure stands for, or if something took
longer than the limit. A record that ends a child of the sandbox is a failure like others; its number is printed.
"""

import argparse
import gzip
import io
import json
import random
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.formats import IMAGE_FORMATS
from transforms.images.sandboxed import decode_pairs
from transforms.reading.example_proto import example_class
from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.record_error import RecordError
from transforms.reading.tfrecord_container import frame
from transforms.reading.zip_members import list_members, read_members
from transforms.schema import Fields
from transforms.storage.errors import READ_ERRORS
from transforms.worker.sandbox import SANDBOX_REASONS, Sandbox, SandboxError
from transforms.worker.threads import thread_count

_POLICY = DecodePolicy(size_mismatch="resize", range="0..1")
_FIELDS = Fields(keep=("label",))
_KEEP = (pa.field("label", pa.int64()),)
# Two kinds that belong to neither table of formats.
ARRAY, ZIP = "array", "zip"
# A mutated length must not make a run of the fuzzer endless.
_MOST_RECORDS = 5000
_IMAGES_PER_TASK, _FILES_PER_TASK = 64, 8
_SECONDS_PER_TASK = 600
_TYPES = (np.uint8, np.uint16, np.float32)

_BYTES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 46341, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Outcome:
    """The outcomes of the mutants of one kind.

    Attributes:
        mutants: how many there were.
        counts: records by reason; those that went through are `scored` or, of files, `read`.
        ended: numbers of the mutants that ended a child, with the reason.
        problems: what must not happen.
        seconds: of work, all threads together.
    """

    mutants: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    ended: list[tuple[int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Add the mutants of another one."""
        self.mutants += other.mutants
        self.counts.update(other.counts)
        self.ended += other.ended
        self.problems += other.problems
        self.seconds += other.seconds


# ---- Images and files to mutate ----


def _pictures() -> Iterator[Image.Image]:
    """A few small pictures, some smooth and some rough."""
    for width, height in ((48, 40), (17, 23)):
        y, x = np.mgrid[:height, :width]
        base = np.stack([x * 200 / width, y * 200 / height, (x + y) * 180 / (width + height)], 2) + 25
        rough = np.random.default_rng(width).normal(0, 6, base.shape)
        yield Image.fromarray(np.clip(base + rough, 0, 255).astype(np.uint8))


def _saved(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def _dicom(picture: Image.Image, **elements: object) -> bytes:
    """The picture as a DICOM file, with further elements by their keywords."""
    from pydicom import FileDataset, FileMetaDataset, dcmwrite
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    pixels = np.asarray(picture)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta)
    bits = pixels.dtype.itemsize * 8
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape[:2], len(picture.getbands())
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits, bits - 1, 0
    made.PhotometricInterpretation, made.PlanarConfiguration = "RGB" if pixels.ndim == 3 else "MONOCHROME2", 0
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(made, name, value)
    buffer = io.BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


@cache
def image_bases() -> Mapping[str, Sequence[bytes]]:
    """Sound images to mutate, by the name of their format."""
    made: dict[str, list[bytes]] = {format.name: [] for format in IMAGE_FORMATS if format.open}
    turned = Image.Exif()
    turned[274] = 6
    text = PngInfo()
    text.add_text("a", "b" * 300, zip=True)
    text.add_itxt("c", "d" * 50)
    for rgb in _pictures():
        gray, palette, seen_through = rgb.convert("L"), rgb.quantize(64), rgb.convert("RGBA")
        seen_through.putalpha(gray)
        deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
        several = {"save_all": True, "append_images": [rgb.transpose(Image.Transpose.ROTATE_180)]}
        made["PNG"] += [
            *(_saved(image, "PNG") for image in (rgb, gray, palette, seen_through, rgb.convert("1"), deep)),
            _saved(rgb, "PNG", pnginfo=text, exif=turned.tobytes()),
            _saved(palette, "PNG", transparency=3),
            _saved(rgb, "PNG", **several),
        ]
        made["JPEG"] += [
            *(_saved(rgb, "JPEG", quality=q, progressive=p) for q in (30, 90) for p in (False, True)),
            *(_saved(image, "JPEG") for image in (gray, rgb.convert("CMYK"))),
            _saved(rgb, "JPEG", exif=turned.tobytes(), restart_marker_rows=1, subsampling=0),
        ]
        made["WebP"] += [
            *(_saved(image, "WEBP", lossless=lossless) for image in (rgb, seen_through) for lossless in (False, True)),
            _saved(rgb, "WEBP", exif=turned.tobytes(), icc_profile=bytes(200)),
            _saved(rgb, "WEBP", **several),
        ]
        made["BMP"] += [_saved(image, "BMP") for image in (rgb, gray, palette, seen_through, rgb.convert("1"))]
        made["TIFF"] += [
            *(_saved(rgb, "TIFF", compression=c) for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
            *(_saved(image, "TIFF", compression="tiff_lzw") for image in (gray, seen_through, rgb.convert("CMYK"))),
            *(_saved(rgb.convert("1"), "TIFF", compression=c) for c in ("group3", "group4")),
            _saved(deep, "TIFF", compression="tiff_adobe_deflate"),
            _saved(rgb, "TIFF", tiffinfo={274: 5, TiffImagePlugin.ROWSPERSTRIP: 8}, **several),
            _saved(rgb, "TIFF", big_tiff=True),
        ]
        made["GIF"] += [
            *(_saved(image, "GIF") for image in (palette, gray)),
            _saved(palette, "GIF", save_all=True, append_images=[gray], comment=b"hello" * 60),
            _saved(palette, "GIF", transparency=2, interlace=1),
        ]
        if "AVIF" in made:
            made["AVIF"] += [_saved(image, "AVIF", speed=10) for image in (rgb, gray, seen_through)]
            made["AVIF"] += [_saved(rgb, "AVIF", speed=10, **several)]
        made["JPEG 2000"] += [
            *(_saved(image, "JPEG2000") for image in (rgb, gray, seen_through, deep)),
            _saved(rgb, "JPEG2000", irreversible=True, no_jp2=True),
        ]
        made["PNM"] += [_saved(image, "PPM") for image in (rgb, gray, rgb.convert("1"), deep)]
        made["PNM"] += [b"P3 %d %d 255\n" % rgb.size + b" ".join(b"%d" % v for v in rgb.tobytes())]
        if "DICOM" in made:
            made["DICOM"] += [_dicom(image) for image in (rgb, gray, deep)]
            made["DICOM"] += [
                _dicom(gray, PhotometricInterpretation="MONOCHROME1", RescaleSlope="2", WindowCenter="40"),
                _dicom(gray, NumberOfFrames=2, PixelData=gray.tobytes() * 2),
            ]
        if "JPEG XL" in made:
            made["JPEG XL"] += [_saved(rgb, "JXL", lossless=lossless) for lossless in (False, True)]
        made["TGA"] += [_saved(image, "TGA", compression=c) for image in (rgb, palette) for c in (None, "tga_rle")]
    return made | {ARRAY: [_array(np.asarray(picture, np.float32) / 255) for picture in _pictures()] + [_arrays()]}


def _array(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def _arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=np.zeros((17, 23, 3), np.float32))
    return buffer.getvalue()


def _zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tarred(members: Mapping[str, bytes], format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@cache
def file_bases() -> Mapping[str, Sequence[bytes]]:
    """Sound input files to mutate, by kind; the suffix of their names is in `_SUFFIXES`."""
    images = [_saved(picture.resize((4, 4)), "PNG") for picture in _pictures()]
    rows: list[dict[str, Any]] = [
        {"id": f"p{n}", "generated": images[n % 2], "target": images[n * 3 % 2], "label": n if n % 4 else None}
        for n in range(12)
    ]
    table = pa.Table.from_pylist(rows)
    structs = table.set_column(1, "generated", pa.array([{"bytes": row["generated"], "path": None} for row in rows]))
    parquet = []
    options: tuple[dict[str, object], ...] = (
        {},
        {"compression": "zstd", "row_group_size": 5},
        {"use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "gzip", "write_page_checksum": True},
    )
    for one in (table, structs):
        for option in options:
            buffer = io.BytesIO()
            pq.write_table(one, buffer, **option)
            parquet.append(buffer.getvalue())
    records = b"".join(map(frame, map(_example, rows)))
    members = {f"{row['id']}.{side}": row[side] for row in rows for side in ("generated", "target")}
    members |= {f"{row['id']}.json": json.dumps({"label": row["label"]}).encode() for row in rows}
    named = [{**row, "generated": "a.png", "target": "b.png"} for row in rows]
    lines = "".join(f"{row['id']},a.png,b.png,{row['label'] or ''}\n" for row in rows)
    return {
        "parquet": parquet,
        "tfrecord": [records, b"".join(frame(bytes(n)) for n in range(9))],
        "tfrecord gzip": [gzip.compress(records), gzip.compress(records[:300]) + gzip.compress(records[300:])],
        "tfrecord zlib": [zlib.compress(records), zlib.compress(records, 0)],
        "csv": [f"id,generated,target,label\n{lines}".encode()],
        "jsonl": ["".join(json.dumps(row) + "\n" for row in named).encode()],
        "webdataset": [_tarred(members, format) for format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT)],
        ZIP: [_zipped(members), _zipped(dict(list(members.items())[:3]))],
    }


_SUFFIXES = {
    "parquet": ".parquet",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "webdataset": ".tar",
    ZIP: ".zip",
    **dict.fromkeys(("tfrecord", "tfrecord gzip", "tfrecord zlib"), ".tfrecord"),
}


_PACK: dict[str, Callable[[bytes], bytes]] = {
    "tfrecord": bytes,
    "tfrecord gzip": gzip.compress,
    "tfrecord zlib": zlib.compress,
}


def _example(row: Mapping[str, object]) -> bytes:
    example = example_class()()
    for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        elif value is not None:
            feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    return bytes(example.SerializeToString(deterministic=True))


# ---- Mutants ----


def mutate(rng: random.Random, bases: Sequence[bytes]) -> bytes:
    """A damaged copy of one of the bases: bits, numbers, stretches."""
    data = bytearray(rng.choice(bases))
    # Headers and footers hold most of what a parser believes.
    low, high = rng.choice(((0, len(data)), (0, min(len(data), 200)), (max(0, len(data) - 600), len(data))))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(low, max(low + 1, min(high, len(data))))
        size = rng.choice((1, 2, 8, 64, 300))
        match rng.choice(("bit", "bit", "byte", "byte", "number", "number", "cut", "drop", "double", "splice")):
            case "bit" if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case "byte":
                data[at : at + 1] = bytes([rng.choice(_BYTES)])
            case "number":
                layout = rng.choice(("<I", ">I", "<H", ">H", "<Q"))
                mask = (1 << 8 * struct.calcsize(layout)) - 1
                data[at : at + struct.calcsize(layout)] = struct.pack(layout, rng.choice(_NUMBERS) & mask)
            case "cut":
                del data[rng.randrange(len(data) + 1) :]
            case "drop":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size] * rng.choice((1, 2, 20))
            case "splice":
                other = rng.choice(bases)
                data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def mutant(kind: str, seed: int, number: int) -> bytes:
    """The mutant of this number. Checksums around its damage are often right again, so that parsers go on."""
    rng = random.Random(f"{seed} {kind} {number}")
    if kind in image_bases():
        data = mutate(rng, image_bases()[kind])
        return _with_png_checksums(data) if kind == "PNG" and rng.random() < 0.7 else data
    bases = file_bases()[kind]
    if kind.startswith("tfrecord") and rng.random() < 0.5:
        damaged = frame(mutate(rng, [bytes(_example({"id": "x", "generated": b"g" * 50, "target": b"t", "label": 1}))]))
        return _PACK[kind](damaged * 3)
    return mutate(rng, bases)


def _with_png_checksums(data: bytes) -> bytes:
    fixed = bytearray(data)
    at = 8
    while at + 12 <= len(fixed):
        end = at + 8 + int(struct.unpack_from(">I", fixed, at)[0])
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


# ---- Trials ----


def try_images(kind: str, seed: int, numbers: range, sandbox: Sandbox) -> Outcome:
    """Decode mutants beside a sound image, as the generated image or as the target."""
    outcome, began = Outcome(len(numbers)), time.perf_counter()
    good = image_bases()[ARRAY if kind == ARRAY else "PNG"][0]
    made = [(number, mutant(kind, seed, number)) for number in numbers]
    decoded = decode_pairs([(data, good) if n % 2 else (good, data) for n, data in made], _POLICY, sandbox)
    if len(decoded) != len(made):
        outcome.problems.append(f"{kind} {numbers}: {len(decoded)} of {len(made)} records came back")
    for number, one in zip(numbers, decoded, strict=False):
        if isinstance(one, DecodeError):
            outcome.counts[one.reason] += 1
            if one.reason in SANDBOX_REASONS:
                outcome.ended.append((number, one.reason))
            continue
        outcome.counts["scored"] += 1
        a, b = one.generated, one.target
        if a.shape != b.shape or a.dtype != b.dtype or a.dtype not in _TYPES or a.shape[2:] != (3,):
            outcome.problems.append(f"{kind} {number}: {a.shape} {a.dtype} beside {b.shape} {b.dtype}")
    outcome.seconds = time.perf_counter() - began
    return outcome


def try_files(kind: str, seed: int, numbers: range, sandbox: Sandbox) -> Outcome:
    """List and read mutated files, and count their records."""
    outcome, began = Outcome(len(numbers)), time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        for number in numbers:
            data = mutant(kind, seed, number)
            path = Path(directory, f"{number}{_SUFFIXES[kind]}")
            path.write_bytes(data)
            stat = path.stat()
            try:
                if kind == ZIP:
                    _read_zip(path, number, sandbox, outcome)
                else:
                    _read(InputFile(str(path), stat.st_size, stat.st_mtime), number, sandbox, outcome)
            except Exception as error:
                outcome.problems.append(f"{kind} {number}: {type(error).__name__}: {error}")
            path.unlink()
    outcome.seconds = time.perf_counter() - began
    return outcome


def _read(file: InputFile, number: int, sandbox: Sandbox, outcome: Outcome) -> None:
    """Raises AssertionError where a record is lost."""
    seen = 0
    for series in list_chunks(file, "auto", _FIELDS, 5, sandbox=sandbox):
        for encoded in read_series(series, _FIELDS, _KEEP, sandbox):
            chunk, rows = encoded.chunk, encoded.pairs.num_rows
            whole = any(failure.scope == "file" for failure in encoded.failures)
            assert chunk.start == seen, f"the chunk at {chunk.start} follows {seen} records"
            assert whole or rows + len(encoded.failures) == chunk.pairs, f"{chunk.pairs} records became {rows}"
            seen = chunk.stop
            outcome.counts["read"] += rows
            outcome.counts.update(failure.reason for failure in encoded.failures)
            ended = {failure.reason for failure in encoded.failures} & SANDBOX_REASONS.keys()
            outcome.ended += [(number, reason) for reason in sorted(ended)]
        if seen > _MOST_RECORDS:
            return


def _read_zip(path: Path, number: int, sandbox: Sandbox, outcome: Outcome) -> None:
    """List an archive, and read its members, as for a folder. Raises AssertionError where a member is lost."""
    with path.open("rb") as file:
        try:
            members = list(list_members(file, sandbox))
        except (*READ_ERRORS, SandboxError) as error:
            outcome.counts[type(error).__name__] += 1
            return
        found = list(read_members(file, [member for _, member in members], sandbox, _POLICY.max_image_bytes))
    outcome.counts.update(one.reason if isinstance(one, RecordError) else "read" for one in found)
    assert len(found) == len(members), f"{len(members)} members became {len(found)}"
    ended = {one.reason for one in found if isinstance(one, RecordError)} & SANDBOX_REASONS.keys()
    outcome.ended += [(number, reason) for reason in sorted(ended)]


Trial = Callable[[str, int, range, Sandbox], Outcome]


def fuzz(trial: Trial, kinds: Sequence[str], count: int, seed: int, first: int, sandbox: Sandbox) -> dict[str, Outcome]:
    """Try mutants, `count` of all kinds together.

    Args:
        trial: `try_images` or `try_files`.
        kinds: keys of `image_bases` or of `file_bases`.
        count: number of mutants.
        seed: of all random choices.
        first: number of the first mutant of each kind.
        sandbox: where they are parsed.

    Returns:
        the outcome by kind.
    """
    outcomes = {kind: Outcome() for kind in kinds}
    step = _IMAGES_PER_TASK if trial is try_images else _FILES_PER_TASK
    last = first + -(-count // max(1, len(kinds)))
    tasks = [(kind, range(at, min(at + step, last))) for at in range(first, last, step) for kind in kinds]
    with ThreadPoolExecutor(thread_count()) as pool:
        waiting: list[tuple[str, range, Future[Outcome]]] = []
        for kind, numbers in tasks:
            waiting.append((kind, numbers, pool.submit(trial, kind, seed, numbers, sandbox)))
            if len(waiting) > 4 * thread_count():
                _collect(outcomes, waiting.pop(0))
        for task in waiting:
            _collect(outcomes, task)
    return outcomes


def _collect(outcomes: dict[str, Outcome], task: tuple[str, range, Future[Outcome]]) -> None:
    kind, numbers, future = task
    try:
        outcomes[kind].add(future.result(_SECONDS_PER_TASK))
    except TimeoutError:
        # The thread cannot be ended, so the fuzzer ends here.
        sys.exit(f"{kind} {numbers}: nothing came back for {_SECONDS_PER_TASK} s")


def _show(kind: str, outcome: Outcome) -> None:
    good = outcome.counts["scored"] + outcome.counts["read"]
    reasons = {reason: n for reason, n in outcome.counts.most_common() if reason not in ("scored", "read")}
    shown = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    counts = f"{good} good records, {sum(reasons.values())} failures ({shown})"
    print(f"{kind:14} {outcome.mutants:8} mutants: {counts}", flush=True)
    for number, reason in outcome.ended[:20]:
        print(f"{'':14} mutant {number}: {reason}")
    for problem in outcome.problems[:20]:
        print(f"{'':14} PROBLEM: {problem}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz, and print what came of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="mutated images, of all formats together")
    parser.add_argument("--files", type=int, default=1_000, help="mutated input files, of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant of each kind")
    parser.add_argument("--only", default="", metavar="KINDS", help="comma-separated; all by default")
    arguments = parser.parse_args(argv)
    only = [kind for kind in arguments.only.split(",") if kind]
    if unknown := set(only) - image_bases().keys() - file_bases().keys():
        parser.error(f"no kind {min(unknown)!r}; there are {', '.join((*image_bases(), *file_bases()))}")
    chosen = partial(filter, lambda kind: kind in only or not only)
    began = time.perf_counter()
    outcomes: dict[str, Outcome] = {}
    for trial, kinds, count in (
        (try_images, image_bases(), arguments.images),
        (try_files, file_bases(), arguments.files),
    ):
        found = fuzz(trial, list(chosen(kinds)), count, arguments.seed, arguments.first, Sandbox())
        outcomes |= found
        for kind, outcome in found.items():
            _show(kind, outcome)
    problems = sum(len(outcome.problems) for outcome in outcomes.values())
    print(f"seed {arguments.seed}: {problems} problems in {time.perf_counter() - began:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
