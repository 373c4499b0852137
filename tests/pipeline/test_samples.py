"""The sample pairs: real photographs, known degradations, the same records in both files."""

import sys
from collections import Counter
from dataclasses import asdict, fields
from io import BytesIO
from itertools import islice

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, UnidentifiedImageError

from benchmarks.pairs_of_size import pairs_of_size
from pipeline.samples import (
    CORRUPTIONS,
    DEGRADATIONS,
    ROW_GROUP_PAIRS,
    SOURCES,
    SamplePair,
    main,
    make_pairs,
    photographs,
    repeat_pairs,
    write_parquet,
    write_tfrecord,
)

pytestmark = pytest.mark.heavy

FORMATS = {"jpeg": "JPEG", "webp": "WEBP"}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    output = tmp_path_factory.mktemp("samples") / "made" / "here"
    assert main([f"--output={output}"]) == 0
    return output


@pytest.fixture(scope="module")
def pairs(output):
    return [SamplePair(**row) for row in pq.read_table(output / "pairs.parquet").to_pylist()]


def sound(pairs):
    return [pair for pair in pairs if pair.degradation not in CORRUPTIONS]


def read_tfrecord(path):
    import tensorflow as tf

    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        yield {name: feature.bytes_list.value[0] for name, feature in features.items()}


def decode(content):
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def image_format(content):
    with Image.open(BytesIO(content)) as image:
        return image.format


def decodes(content):
    try:
        decode(content)
    except (OSError, UnidentifiedImageError):
        return False
    return True


def mean_error(pair):
    return np.abs(decode(pair.generated) / 255 - decode(pair.target) / 255).mean()


def test_every_photograph_meets_every_degradation_once(pairs):
    assert Counter((pair.photo, pair.degradation) for pair in sound(pairs)) == Counter(
        (photo, degradation) for photo in SOURCES for degradation in DEGRADATIONS
    )
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_exactly_the_two_corrupt_records_do_not_decode(pairs):
    assert all(decodes(pair.target) for pair in pairs)
    broken = [pair.degradation for pair in pairs if not decodes(pair.generated)]
    assert sorted(broken) == ["error-page", "truncated-jpeg"]


def test_both_images_of_a_pair_have_the_size_of_the_source(pairs):
    for pair in sound(pairs):
        shape = (SOURCES[pair.photo].height, SOURCES[pair.photo].width, 3)
        assert (decode(pair.generated).shape, decode(pair.target).shape) == (shape, shape), pair.id


def test_there_are_three_to_four_shapes(pairs):
    assert 3 <= len({decode(pair.target).shape for pair in pairs}) <= 4


def test_images_are_in_the_format_of_their_degradation(pairs):
    for pair in sound(pairs):
        expected = FORMATS.get(pair.degradation.partition("-")[0], "PNG")
        assert (image_format(pair.generated), image_format(pair.target)) == (expected, "PNG"), pair.id


def test_images_carry_no_metadata_that_a_reader_would_remark_on(pairs):
    for pair in sound(pairs):
        for content in (pair.generated, pair.target):
            with Image.open(BytesIO(content)) as image:
                assert not {"exif", "icc_profile", "xmp"} & image.info.keys(), pair.id


def test_only_identical_pairs_have_equal_pixels(pairs):
    for pair in sound(pairs):
        equal = np.array_equal(decode(pair.generated), decode(pair.target))
        assert equal == (pair.degradation == "identical"), pair.id


@pytest.mark.parametrize(
    ("better", "worse"),
    [("jpeg-q75", "jpeg-q30"), ("jpeg-q30", "jpeg-q10"), ("webp-q50", "webp-q10"), ("webp-q50", "upside-down")],
)
def test_stronger_degradations_differ_more(pairs, better, worse):
    errors = {(pair.photo, pair.degradation): mean_error(pair) for pair in sound(pairs)}
    for photo in SOURCES:
        assert errors[photo, better] < errors[photo, worse], photo


def test_degradations_do_what_they_say(pairs):
    pixels = {
        pair.degradation: (decode(pair.generated).astype(int), decode(pair.target).astype(int))
        for pair in sound(pairs)
        if pair.photo == "astronaut"
    }
    generated, target = pixels["pixel-shift"]
    np.testing.assert_array_equal(generated[:, 1:], target[:, :-1])
    generated, target = pixels["upside-down"]
    np.testing.assert_array_equal(generated, target[::-1, ::-1])
    generated, target = pixels["occlusion"]
    changed = (generated != target).any(axis=2)
    assert changed.mean() == pytest.approx(1 / 9, abs=0.01)
    assert (generated[changed] == 128).all()
    generated, target = pixels["colour-shift"]
    red, green, blue = (generated - target).mean(axis=(0, 1))
    assert blue < green == 0 < red
    generated, target = pixels["noise"]
    inner = (target > 80) & (target < 175)
    assert (generated - target)[inner].std() == pytest.approx(20, rel=0.05)
    for smoothing in ("blur", "resampled-x4"):
        generated, target = pixels[smoothing]
        assert np.abs(np.diff(generated, axis=1)).mean() < 0.7 * np.abs(np.diff(target, axis=1)).mean()


def test_both_files_hold_the_same_records_in_the_same_order(output, pairs):
    expected = [
        {name: value.encode() if isinstance(value, str) else value for name, value in asdict(pair).items()}
        for pair in pairs
    ]
    assert list(read_tfrecord(output / "pairs.tfrecord")) == expected


def test_parquet_has_a_few_row_groups(output, pairs):
    metadata = pq.read_metadata(output / "pairs.parquet")
    rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(rows) == len(pairs)
    assert len(rows) >= 3
    assert rows[:-1] == [ROW_GROUP_PAIRS] * (len(rows) - 1)


def test_a_second_run_replaces_the_files_with_the_same_bytes(output, tmp_path, capsys):
    for name in ("pairs.parquet", "pairs.tfrecord"):
        (tmp_path / name).write_bytes(b"from before")
    assert main([f"--output={tmp_path}"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.parquet", "pairs.tfrecord"]
    printed = capsys.readouterr().out
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (output / path.name).read_bytes()
        assert f"{path}: 93 pairs, {path.stat().st_size / 1e6:.1f} MB" in printed


def test_repeated_pairs_differ_in_nothing_but_unique_ids(pairs):
    repeated = list(repeat_pairs(pairs, 3))
    assert len({pair.id for pair in repeated}) == len(repeated) == 3 * len(pairs)
    assert repeated[: len(pairs)] == pairs
    first, third = repeated[0], repeated[2 * len(pairs)]
    assert third.id == f"{first.id}/3"
    assert {**asdict(third), "id": first.id} == asdict(first)


def test_repeat_reaches_both_files(tmp_path, monkeypatch):
    few = list(islice(make_pairs(), 2))
    monkeypatch.setattr("pipeline.samples.make_pairs", lambda: iter(few))
    assert main([f"--output={tmp_path}", "--repeat=2"]) == 0
    expected = [pair.id for pair in repeat_pairs(few, 2)]
    assert pq.read_table(tmp_path / "pairs.parquet")["id"].to_pylist() == expected
    assert [record["id"].decode() for record in read_tfrecord(tmp_path / "pairs.tfrecord")] == expected


# 500 is higher than the lowest photograph, 700 wider than most.
@pytest.mark.parametrize(("height", "width"), [(48, 64), (500, 32), (16, 700)])
def test_pairs_of_size(height, width):
    pairs = list(pairs_of_size(height, width, 15))
    assert len({pair.id for pair in pairs}) == 15
    assert {pair.photo for pair in pairs} == set(SOURCES)
    assert {pair.degradation for pair in pairs} == set(DEGRADATIONS)
    for pair in pairs:
        assert decode(pair.generated).shape == decode(pair.target).shape == (height, width, 3)
    assert len({pair.target for pair in pairs}) == 15
    assert pairs[:3] == list(pairs_of_size(height, width, 3))


def test_photographs_are_colour_images_of_the_packages():
    photos = photographs()
    assert photos.keys() == SOURCES.keys()
    assert {photo.mode for photo in photos.values()} == {"RGB"}
    for name, photo in photos.items():
        assert photo.height >= SOURCES[name].height, name
        assert photo.width >= SOURCES[name].width, name


@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_a_missing_package_is_one_line_and_exit_code_2(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main([f"--output={tmp_path / 'new'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "pip install 'pairloss[samples]'" in line
    assert package in line
    assert not (tmp_path / "new").exists()


def test_an_output_that_is_a_file_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([f"--output={tmp_path / 'file'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=gs://bucket/samples"], "local directory"),
        (["--output=samples", "--repeat=0"], "at least 1"),
        (["--output=samples", "--repeat=two"], "two"),
        ([], "--output"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_parquet, write_tfrecord])
def test_an_interrupted_write_leaves_what_was_there(write, tmp_path):
    def interrupted():
        yield SamplePair(*([b"x" if field.type is bytes else "x" for field in fields(SamplePair)]))
        raise KeyboardInterrupt

    (tmp_path / "pairs").write_bytes(b"from before")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pairs", interrupted())
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]
    assert (tmp_path / "pairs").read_bytes() == b"from before"
