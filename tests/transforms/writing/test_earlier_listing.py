from io import BytesIO

import numpy as np
import pytest

from transforms.reading.folders import describe_listed, make_listing
from transforms.reading.format import LISTING
from transforms.reading.input_files import InputFile
from transforms.reading.lines import LineRange
from transforms.reading.pairing import FilePair
from transforms.schema import Chunk
from transforms.storage.run_files import RunFiles
from transforms.writing.earlier_listing import EarlierListing, read_earlier_listing

LINES = 7


def pair(number: int, modified: float = 5.0) -> FilePair:
    """A pair whose generated image was last changed at that time."""
    sides = [InputFile(f"{side}/{number}.png", 10, time) for side, time in (("out", modified), ("gt", 5.0))]
    return FilePair(str(number), *sides, {})


@pytest.fixture
def content(tmp_path) -> bytes:
    """The listing of a run of three chunks, of which the second has no metrics."""
    files = RunFiles(str(tmp_path))
    name, content = make_listing([pair(number) for number in range(LINES)], ())
    files.write_whole(f"{files.listing_directory}/{name}", content)
    for start, stop in ((0, 3), (5, LINES)):
        files.write_whole(f"{files.metrics_directory}/pairs-{start:09d}-{stop:09d}.parquet", b"")
    return content


def read(tmp_path, claim: str = "") -> EarlierListing | None:
    return read_earlier_listing(str(tmp_path), next((tmp_path / "listing").iterdir()).name, claim)


def test_lines_are_found_wherever_they_stand(content, tmp_path):
    lines = content.splitlines()
    listing = read(tmp_path)
    assert listing.find([lines[4], b"", b"another", *lines[:2]]).tolist() == [4, -1, -1, 0, 1]


@pytest.mark.parametrize(
    ("numbers", "starts"), [([-1], []), ([0, 1], [0]), ([2, 6, -1], [0, 5]), ([5], [5]), ([-1, -1], [])]
)
def test_the_chunks_of_lines(content, tmp_path, numbers, starts):
    assert [chunk.start for chunk in read(tmp_path).chunks_of(np.array(numbers))] == starts


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: content + b"\n"])
def test_a_damaged_listing_is_none(content, tmp_path, damage):
    (path,) = (tmp_path / "listing").iterdir()
    path.write_bytes(damage(content))
    assert read(tmp_path, "of another launch") is None


def test_a_file_without_a_time_is_not_known_to_be_the_same():
    _, content = make_listing([pair(0), pair(1, modified=0.0)], ())
    chunk = Chunk("name", "listing", LISTING, 3, 5, LineRange(0, len(content)))
    described = dict(describe_listed(BytesIO(content), chunk))
    assert described == {"out/0.png#3": content.splitlines()[0], "out/1.png#4": b""}
