"""Sound images and input files, which `benchmarks.fuzz` mutates."""

import gzip
import io
import json
import tarfile
import zipfile
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from transforms.images.formats import IMAGE_FORMATS
from transforms.reading.example_proto import example_class
from transforms.reading.tfrecord_container import frame

# Two kinds that belong to neither table of formats.
ARRAY, ZIP = "array", "zip"

# 24x16 pixels: a red, a white, a black and a blue quarter; written by pillow-heif.
HEIC = b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAAMIAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNs"
    "eAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcGl4"
    "aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAym1kYXQAAAC+KAGvBjIeojPQXUHFdvPP//9570PZzNOJGz157i/9"
    "tmbXs7/LOHOtnMm6NKfFW9U+A3gxR3r+HPZC8W/9hSWTkhLIM2bkHo9u/nT6ZHcNn+N/kDh0ZXgvb9zbikT/QFIr3NGPT3tFMP+2"
    "PkjDpf8ONgML2XRH40a7Enrp0synTDfogEgQFBhEzOJMdQRmICFsOPjHui6OC7rGCr3QphA64VADhCDZq9VdL4FzzOZvfZUrK1cV"
    "Kq6mdZnwEbY9wA=="
)
# As large, with transparency.
_HEIC_WITH_ALPHA = b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAA"
    "AERAAAIAAQAAAAACjwABAAAAAAAAAEIAAgAAAAAC0QABAAAAAAAAACsAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZl"
    "AgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGCaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH/"
    "/wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xy"
    "bmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcGl4aQAAAAAD"
    "CAgIAAAAcWh2Y0MBBAgAAACf+AAAAAAe8AD8/Pj4AAAPA2AAAQAXQAEMAf//BAgAAAMAn/gAAAMAAB66AkBhAAEAJkIBAQQIAAADAJ/4AAADAAAe"
    "wIIEFluqumubAgAAAwAyAAADAAIQYgABAAZEAcFzwYkAAAAOcGl4aQAAAAABCAAAACdhdXhDAAAAAHVybjptcGVnOmhldmM6MjAxNTphdXhpZDox"
    "AAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iEAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEAAAB1bWRhdAAAAD4oAa8ZIXESwO9cHFlU"
    "DC/8i2nm12ZAQXkUEvZbHOl4/qi/8nOrXpOhoT+d27Ta2HsPf0C4snCQMoCyTwhJMAAAACcoAa4yQmwkxQnPKoGF/idwXkUyvKW9MSq4X8B18dC5"
    "ZXDegLgEqig="
)


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
            # It tells Pillow how to write them.
            import pillow_jxl  # noqa: F401

            made["JPEG XL"] += [_saved(rgb, "JXL", lossless=lossless) for lossless in (False, True)]
        made["TGA"] += [_saved(image, "TGA", compression=c) for image in (rgb, palette) for c in (None, "tga_rle")]
    if "HEIC" in made:
        made["HEIC"] += [HEIC, _HEIC_WITH_ALPHA]
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
    """Sound input files to mutate, by kind; the suffix of their names is in `SUFFIXES`."""
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
    records = b"".join(map(frame, map(example, rows)))
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
        "tar": [_tarred(members, format) for format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT)],
        ZIP: [_zipped(members), _zipped(dict(list(members.items())[:3]))],
    }


SUFFIXES = {
    "parquet": ".parquet",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "tar": ".tar",
    ZIP: ".zip",
    **dict.fromkeys(("tfrecord", "tfrecord gzip", "tfrecord zlib"), ".tfrecord"),
}


PACK: dict[str, Callable[[bytes], bytes]] = {
    "tfrecord": bytes,
    "tfrecord gzip": gzip.compress,
    "tfrecord zlib": zlib.compress,
}


def example(row: Mapping[str, object]) -> bytes:
    """A serialized tf.train.Example of these values."""
    message = example_class()()
    for name, value in row.items():
        feature = message.features.feature[name]
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        elif value is not None:
            feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    return bytes(message.SerializeToString(deterministic=True))
