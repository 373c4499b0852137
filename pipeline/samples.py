"""Make sample pairs from real photographs: `pairloss samples --output=DIR`.

The photographs lie inside the wheels of scikit-image (released as CC0 or into the public domain) and scikit-learn
(china: danielbuechele, flower: vultilion, both on Flickr, CC BY 2.0); nothing is downloaded. Each is cropped and
scaled to a target, and then degraded as real models, codecs and cameras do it. The same records are written as Parquet
and as TFRecord. The same versions of Pillow and NumPy make the same bytes.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.resources import files
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter, ImageOps

from transforms.writing.optimized_images import tfrecord

SEED = 3
ROW_GROUP_PAIRS = 32
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("generated", pa.binary(), nullable=False),
        pa.field("target", pa.binary(), nullable=False),
        pa.field("photo", pa.string(), nullable=False),
        pa.field("degradation", pa.string(), nullable=False),
    ]
)


class SamplesError(Exception):
    """The photographs are missing. The message says how to get them."""


@dataclass(frozen=True)
class SamplePair:
    """One record.

    Attributes:
        id: `<photo>/<degradation>`, followed by `/<number>` if that alone is not unique.
        generated: the degraded image, encoded; in a corrupt record, bytes that are not an image.
        target: the image before it was degraded, as PNG.
        photo: name of the photograph, a key of `photographs()`.
        degradation: a key of `DEGRADATIONS` or `CORRUPTIONS`.
    """

    id: str
    generated: bytes
    target: bytes
    photo: str
    degradation: str


@dataclass(frozen=True)
class Source:
    """A photograph that a package ships, and the size in pixels of the targets made of it."""

    package: str
    path: str
    height: int
    width: int


# The wheels hold only these; skimage.data fetches its other photographs from the network.
SOURCES = {
    "astronaut": Source("skimage", "data/astronaut.png", 256, 256),
    "chelsea": Source("skimage", "data/chelsea.png", 240, 320),
    "coffee": Source("skimage", "data/coffee.png", 240, 320),
    "rocket": Source("skimage", "data/rocket.jpg", 288, 192),
    "hubble": Source("skimage", "data/hubble_deep_field.jpg", 256, 256),
    "china": Source("sklearn", "datasets/images/china.jpg", 288, 192),
    "flower": Source("sklearn", "datasets/images/flower.jpg", 96, 96),
}
CORRUPTED_PHOTO = "coffee"


def photographs() -> dict[str, Image.Image]:
    """Load every photograph in full size, mode RGB.

    Raises:
        SamplesError: scikit-image or scikit-learn is not installed, or does not ship a photograph.
    """
    try:
        return {name: _load(source) for name, source in SOURCES.items()}
    except (ImportError, FileNotFoundError) as error:
        raise SamplesError(
            "the samples are photographs that scikit-image and scikit-learn ship; "
            f"run: pip install 'pairloss[samples]' ({error})"
        ) from error


def _load(source: Source) -> Image.Image:
    content = (files(source.package) / source.path).read_bytes()
    with Image.open(BytesIO(content)) as image:
        # The way through an array drops EXIF data and colour profiles, which Pillow would write to every file it saves.
        return Image.fromarray(np.asarray(image.convert("RGB")))


def png(image: Image.Image) -> bytes:
    """Encode without loss, as PNG."""
    return _encode(image, "PNG")


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Compress as JPEG, at a quality of 1 to 95."""
    return _encode(image, "JPEG", quality=quality)


def webp(image: Image.Image, quality: int) -> bytes:
    """Compress as lossy WebP, at a quality of 0 to 100."""
    return _encode(image, "WEBP", quality=quality)


def blur(image: Image.Image) -> bytes:
    """Blur with a Gaussian of 2 pixels standard deviation."""
    return png(image.filter(ImageFilter.GaussianBlur(2)))


def noise(image: Image.Image) -> bytes:
    """Add Gaussian noise of standard deviation 20 (of 255), the same for all images of one size."""
    pixels = np.asarray(image)
    noisy = pixels + np.random.default_rng(SEED).normal(scale=20, size=pixels.shape)
    return png(Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)))


def resample(image: Image.Image) -> bytes:
    """Downsample four times and upsample again, both bicubic: the baseline of super-resolution."""
    small = max(1, image.width // 4), max(1, image.height // 4)
    bicubic = Image.Resampling.BICUBIC
    return png(image.resize(small, bicubic).resize(image.size, bicubic))


def shift_colour(image: Image.Image) -> bytes:
    """Turn the white balance towards warm: more red, less blue."""
    return png(image.convert("RGB", (1.1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0.8, 0)))


def occlude(image: Image.Image) -> bytes:
    """Cover the middle ninth with mid-gray."""
    occluded = image.copy()
    width, height = image.size
    occluded.paste((128, 128, 128), (width // 3, height // 3, width * 2 // 3, height * 2 // 3))
    return png(occluded)


def shift_pixel(image: Image.Image) -> bytes:
    """Move by one pixel to the right; the leftmost column stays."""
    shifted = image.copy()
    shifted.paste(image, (1, 0))
    return png(shifted)


def turn(image: Image.Image) -> bytes:
    """Turn upside down."""
    return png(image.transpose(Image.Transpose.ROTATE_180))


def truncated_jpeg(image: Image.Image) -> bytes:
    """Cut a JPEG file in half, as a broken transfer does."""
    content = jpeg(image, quality=90)
    return content[: len(content) // 2]


def error_page(_: Image.Image) -> bytes:
    """Return the HTML page that a server sends in place of a missing image."""
    return b"<!DOCTYPE html><title>404 Not Found</title><h1>Not Found</h1>"


DEGRADATIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "identical": png,
    "jpeg-q10": partial(jpeg, quality=10),
    "jpeg-q30": partial(jpeg, quality=30),
    "jpeg-q75": partial(jpeg, quality=75),
    "webp-q10": partial(webp, quality=10),
    "webp-q50": partial(webp, quality=50),
    "blur": blur,
    "noise": noise,
    "resampled-x4": resample,
    "colour-shift": shift_colour,
    "occlusion": occlude,
    "pixel-shift": shift_pixel,
    "upside-down": turn,
}
CORRUPTIONS: dict[str, Callable[[Image.Image], bytes]] = {"truncated-jpeg": truncated_jpeg, "error-page": error_page}


def make_pairs() -> Iterator[SamplePair]:
    """Make a pair of every photograph and degradation, and two records that no reader can decode.

    Raises:
        SamplesError: a photograph is missing.
    """
    for name, photo in photographs().items():
        source = SOURCES[name]
        image = ImageOps.fit(photo, (source.width, source.height), Image.Resampling.LANCZOS)
        target = png(image)
        corruptions = CORRUPTIONS if name == CORRUPTED_PHOTO else {}
        for degradation, degrade in (DEGRADATIONS | corruptions).items():
            yield SamplePair(f"{name}/{degradation}", degrade(image), target, name, degradation)


def repeat_pairs(pairs: Sequence[SamplePair], times: int) -> Iterator[SamplePair]:
    """Yield the pairs, and `times - 1` copies of them whose ids end in `/2`, `/3` and so on."""
    yield from pairs
    for copy in range(2, times + 1):
        yield from (replace(pair, id=f"{pair.id}/{copy}") for pair in pairs)


def write_parquet(path: Path, pairs: Iterable[SamplePair]) -> None:
    """Write pairs as Parquet, in row groups of 32. The file appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    remaining = iter(pairs)
    # The images are compressed and distinct, so neither a codec nor a dictionary makes them smaller.
    with (
        _whole_or_absent(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="none", use_dictionary=["photo", "degradation"]) as writer,
    ):
        while group := list(islice(remaining, ROW_GROUP_PAIRS)):
            writer.write_table(pa.Table.from_pylist([asdict(pair) for pair in group], SCHEMA))


def write_tfrecord(path: Path, pairs: Iterable[SamplePair]) -> None:
    """Write pairs as TFRecord of tf.train.Example, every field a bytes feature. It appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with _whole_or_absent(path) as temporary, temporary.open("wb") as file:
        file.writelines(tfrecord(asdict(pair)) for pair in pairs)


@contextmanager
def _whole_or_absent(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, and remove it otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(image: Image.Image, format: str, **settings: int) -> bytes:
    content = BytesIO()
    image.save(content, format, **settings)
    return content.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Write `pairs.parquet` and `pairs.tfrecord`, and print what was written."""
    parser = argparse.ArgumentParser(
        prog="pairloss samples",
        description="Make sample pairs of degraded photographs: DIR/pairs.parquet, and the same as DIR/pairs.tfrecord.",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="local directory; files in it are replaced")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="write every pair N times (default: 1)")
    arguments = parser.parse_args(argv)
    if "://" in arguments.output:
        parser.error(f"--output={arguments.output}: only a local directory can be written")
    if arguments.repeat < 1:
        parser.error(f"--repeat={arguments.repeat}: it must be at least 1")
    output = Path(arguments.output)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        pairs = list(make_pairs())
        output.mkdir(parents=True, exist_ok=True)
        for name, write in (("pairs.parquet", write_parquet), ("pairs.tfrecord", write_tfrecord)):
            path = output / name
            write(path, repeat_pairs(pairs, arguments.repeat))
            print(f"{path}: {len(pairs) * arguments.repeat} pairs, {path.stat().st_size / 1e6:.1f} MB")
    except (SamplesError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
