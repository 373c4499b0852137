"""The checks of the launcher before a run starts, and the settings that make two runs the same one."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from google.auth.exceptions import RefreshError
from support import shards

from pipeline.errors import UsageError
from pipeline.launch import prepare as module
from pipeline.launch.prepare import Prepared, prepare
from pipeline.launch.run_directory import claim
from pipeline.parse import parse
from transforms.losses.networks.lpips_weights import LpipsWeights

ROWS = [{"id": "a", "generated": b"x", "target": b"y", "label": 1, "camera": "c"}]
DAMAGED = b"PAR1 this is no Parquet file PAR1"


@pytest.fixture
def input(tmp_path) -> Path:
    path = tmp_path / "in" / "pairs.parquet"
    shards.write_parquet(path, pa.Table.from_pylist(ROWS))
    return path


def prepared(input: object, *arguments: str, losses: str = "mae") -> Prepared:
    return prepare(parse([f"--input={input}", "--output=unused", f"--losses={losses}", *arguments]))


class TestInput:
    @pytest.mark.parametrize("pattern", ["absent.parquet", "in/*.tfrecord", "absent/*", "in"])
    def test_missing(self, tmp_path, input, pattern):
        with pytest.raises(UsageError, match=r"matches no file|is a directory") as caught:
            prepared(tmp_path / pattern)
        assert str(tmp_path / pattern) in str(caught.value)

    def test_one_of_several_missing(self, tmp_path, input):
        with pytest.raises(UsageError, match=r"absent\.parquet"):
            prepared(input, f"--input={tmp_path}/absent.parquet")

    def test_unknown_scheme(self):
        with pytest.raises(UsageError, match="nonsense://x"):
            prepared("nonsense://x")

    def test_files_are_sorted_and_each_there_once(self, tmp_path, input):
        other = shards.write_parquet(tmp_path / "in" / "other.parquet", pa.Table.from_pylist(ROWS))
        found = prepared(f"{input},{tmp_path}/in/*.parquet", f"--input={input}").record.identity["input"]
        assert [file["path"] for file in found] == [other.path, str(input)]

    def test_results_of_the_run_itself_are_no_input(self, tmp_path, input):
        shards.write_parquet(tmp_path / "in" / "run" / "metrics" / "x.parquet", pa.table({"mae": [0.5]}))
        found = prepared(f"{tmp_path}/in/**", f"--output={tmp_path}/in/run").record.identity["input"]
        assert [file["path"] for file in found] == [str(input)]
        with pytest.raises(UsageError, match="matches only files of --output"):
            prepared(f"{tmp_path}/in/run/**", f"--output={tmp_path}/in/run")


class TestFields:
    @pytest.mark.parametrize("flag", ["id_field", "generated_field", "target_field", "keep_fields"])
    def test_missing(self, input, flag):
        with pytest.raises(UsageError, match="no field 'absent'") as caught:
            prepared(input, f"--{flag}=absent")
        message = str(caught.value)
        assert f"--{flag}" in message
        assert str(input) in message
        assert all(f"{name}: " in message for name in ROWS[0])

    def test_wrong_type(self, input):
        with pytest.raises(UsageError, match=r"field 'label' \(--target_field\) is int64"):
            prepared(input, "--target_field=label")

    def test_of_a_tfrecord(self, tmp_path):
        shards.write_tfrecord(tmp_path / "in.tfrecord", ROWS)
        with pytest.raises(UsageError, match=r"no field 'absent'.*label: int64"):
            prepared(tmp_path / "in.tfrecord", "--keep_fields=absent")

    def test_types_of_kept_fields(self, input):
        keep = prepared(input, "--keep_fields=label,camera").keep
        assert keep == (pa.field("label", pa.int64()), pa.field("camera", pa.string()))

    @pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a", "a.tfrecord.gz"])
    @pytest.mark.parametrize("content", [DAMAGED, b"", b"rubbish"], ids=["damaged", "empty", "rubbish"])
    def test_the_next_file_is_asked_where_the_first_cannot_tell(self, input, name, content):
        (input.parent / name).write_bytes(content)
        found = prepared(input.parent / "*", "--keep_fields=label")
        assert found.keep == (pa.field("label", pa.int64()),)
        assert len(found.record.identity["input"]) == 2

    def test_no_file_can_tell(self, tmp_path):
        for name in ("a.parquet", "b.parquet"):
            (tmp_path / name).write_bytes(DAMAGED)
        # Nothing was asked for, so the run may start, and reports its files as failed.
        assert prepared(tmp_path / "*.parquet").keep == ()
        with pytest.raises(UsageError, match="--keep_fields: no input file can be read"):
            prepared(tmp_path / "*.parquet", "--keep_fields=label")

    def test_object_store_fails_for_one_file(self, input, monkeypatch):
        """Its errors are no OSErrors."""
        real = module.detect_format

        def detect(path, format):
            if path.endswith("first"):
                raise RefreshError("the token has expired")
            return real(path, format)

        (input.parent / "first").touch()
        monkeypatch.setattr(module, "detect_format", detect)
        assert prepared(input.parent / "*", "--keep_fields=label").keep == (pa.field("label", pa.int64()),)

    @pytest.mark.parametrize(
        ("types", "expected"),
        [
            ([pa.null(), pa.string()], pa.string()),
            ([pa.null(), pa.null()], pa.string()),
            ([pa.int64(), pa.float64()], pa.float64()),
            ([pa.int32(), pa.int64(), pa.null()], pa.int64()),
            ([pa.int64(), pa.string()], pa.string()),
            ([pa.list_(pa.int64()), pa.int64()], pa.int64()),
            ([None, pa.bool_()], pa.bool_()),
        ],
    )
    def test_types_differ_between_files(self, tmp_path, types, expected):
        for number, dtype in enumerate(types):
            table = pa.table({"generated": [b"g"], "target": [b"t"]})
            if dtype is not None:
                table = table.append_column("label", pa.nulls(1, dtype))
            shards.write_parquet(tmp_path / f"{number}.parquet", table)
        assert prepared(tmp_path / "*", "--keep_fields=label").keep == (pa.field("label", expected),)

    def test_in_a_later_record_of_a_tfrecord(self, tmp_path):
        rows = [{"generated": b"g", "target": b"t"}] * 100
        shards.write_tfrecord(tmp_path / "a.tfrecord", [*rows, {**rows[0], "label": 1}])
        assert prepared(tmp_path / "*", "--keep_fields=label").keep == (pa.field("label", pa.int64()),)

    def test_no_file_of_a_known_format(self, tmp_path):
        for name in ("a.txt", "b.zip"):
            (tmp_path / name).write_bytes(b"neither")
        with pytest.raises(UsageError, match=r"a\.txt has neither the name nor the content of a parquet or tfrecord"):
            prepared(tmp_path / "*")


class TestWeights:
    def test_not_needed(self, input):
        plan = prepared(input, "--weights=absent").config.plan
        assert plan.weights == {}

    @pytest.mark.parametrize("losses", ["lpips_vgg", "vgg_mse", "mae,style"])
    def test_cached_ones(self, input, lpips_weights, losses):
        assert prepared(input, losses=losses).config.plan.weights == {"vgg16_lpips": lpips_weights}

    def test_given_ones(self, tmp_path, input, lpips_weights):
        shutil.copy(lpips_weights.path, tmp_path / "mine.safetensors")
        plan = prepared(input, f"--weights={tmp_path}/mine.safetensors", losses="lpips_vgg").config.plan
        assert plan.weights["vgg16_lpips"].path == f"{tmp_path}/mine.safetensors"

    @pytest.mark.parametrize("path", ["absent.safetensors", "nonsense://x", "/"])
    def test_unreadable(self, input, path):
        with pytest.raises(UsageError, match=f"cannot read the weights at {path}"):
            prepared(input, f"--weights={path}", losses="lpips_vgg")

    def test_others(self, tmp_path, input):
        (tmp_path / "w").write_bytes(b"not these")
        with pytest.raises(UsageError, match=r"has SHA-256 .*, expected .*; it was not used"):
            prepared(input, f"--weights={tmp_path}/w", losses="lpips_vgg")

    def test_cache_that_cannot_be_written_to(self, input, monkeypatch):
        def full(weights):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(LpipsWeights, "fetch", full)
        with pytest.raises(UsageError, match="No space left on device"):
            prepared(input, losses="lpips_vgg")

    def test_keras(self, tmp_path, input):
        arguments = (input, f"--keras_weights={tmp_path}/k.h5")
        with pytest.raises(UsageError, match=r"cannot read the weights at .*k\.h5"):
            prepared(*arguments, losses="style_keras")
        (tmp_path / "k.h5").write_bytes(b"weights")
        plan = prepared(*arguments, losses="style_keras").config.plan
        assert {name: file.sha256 for name, file in plan.weights.items()} == {
            "vgg16_keras": hashlib.sha256(b"weights").hexdigest()
        }


CHANGED = {
    "losses": ["--losses=mae,mse"],
    "objective": ["--objective=mae"],
    "pixel_gradient": ["--objective=mae", "--pixel_gradient"],
    "precision": ["--precision=bfloat16"],
    "vgg_layers": ["--vgg_layers=pool1"],
    "crop_border": ["--crop_border=1"],
    "gt_mean": ["--gt_mean"],
    "masked": ["--mask_field=target"],
    "max_gradient_pixels": ["--max_gradient_pixels=7"],
    "chunk_pairs": ["--chunk_pairs=7"],
    "batch_size": ["--batch_size=7"],
    "input_format": ["--input_format=parquet"],
    "fields": ["--keep_fields=label"],
    "images": ["--size_mismatch=crop"],
    "descent": ["--optimize"],
    "optimized_format": ["--optimize", "--optimized_format=png"],
    "metrics_format": ["--metrics_format=csv"],
    "slice_by": ["--keep_fields=label", "--slice_by=label"],
}


class TestIdentity:
    """Only a run of the same rows is resumed."""

    @pytest.mark.parametrize(
        ("changed", "arguments"),
        [
            *CHANGED.items(),
            ("fields", ["--id_field=label"]),
            ("fields", ["--generated_field=target"]),
            ("fields", ["--target_field=generated"]),
            ("images", ["--max_image_pixels=7"]),
            ("images", ["--max_image_bytes=7"]),
        ],
    )
    def test_settings(self, input, changed, arguments):
        before, after = prepared(input).record, prepared(input, *arguments).record
        assert before.fingerprint != after.fingerprint
        assert before.identity[changed] != after.identity[changed]

    def test_every_setting_is_in_the_table(self, input):
        found = {"version", "weights", "input", "backend"}
        assert prepared(input).record.identity.keys() == CHANGED.keys() | found

    def test_the_backend_is_what_this_machine_has(self, input, tmp_path, monkeypatch):
        (tmp_path / "k.h5").write_bytes(b"weights")
        arguments = (input, f"--keras_weights={tmp_path}/k.h5")
        usual = prepared(*arguments, losses="style_keras").record
        gradient = prepared(*arguments, "--objective=style_keras", "--optimize", losses="style_keras").record
        monkeypatch.setattr("transforms.losses.plan.find_spec", lambda name: None)
        without = prepared(*arguments, losses="style_keras").record
        assert [r.identity["backend"] for r in (usual, gradient, without)] == ["ncnn", "ncnn", "tensorflow"]
        assert usual.fingerprint != without.fingerprint

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--quiet"],
            ["--verbose"],
            ["--overwrite"],
            ["--output=elsewhere"],
            ["--runner=FlinkRunner", "--flink_master=host"],
            ["--weights=unused"],
        ],
        ids=" ".join,
    )
    def test_what_does_not_matter(self, input, arguments):
        assert prepared(input).record.fingerprint == prepared(input, *arguments).record.fingerprint

    def test_an_objective_is_what_it_computes(self, input):
        one, same = (prepared(input, f"--objective={text}").record for text in ("mae+0.5*mse", " 0.50 * mse + mae"))
        assert one.fingerprint == same.fingerprint

    @pytest.mark.parametrize("change", ["size", "time", "name", "another"])
    def test_input(self, input, change):
        before = prepared(input.parent / "*").record
        if change == "size":
            stat = input.stat()
            input.write_bytes(input.read_bytes() + b"x")
            os.utime(input, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        elif change == "time":
            os.utime(input, (1, 1))
        elif change == "name":
            input.rename(input.with_name("renamed.parquet"))
        else:
            shutil.copy2(input, input.with_name("copy.parquet"))
        after = prepared(input.parent / "*").record
        assert before.fingerprint != after.fingerprint
        assert before.identity["input"] != after.identity["input"]

    def test_weights(self, tmp_path, input):
        fingerprints = set()
        for content in (b"one", b"two"):
            (tmp_path / "k.h5").write_bytes(content)
            arguments = (f"--keras_weights={tmp_path}/k.h5",)
            fingerprints.add(prepared(input, *arguments, losses="style_keras").record.fingerprint)
        assert len(fingerprints) == 2

    def test_survives_json(self, input):
        """Otherwise a difference would be reported where none exists."""
        record = prepared(input, "--keep_fields=label", "--objective=mae").record
        assert json.loads(json.dumps(record.identity)) == record.identity

    def test_resumed_by_the_same_command(self, tmp_path, input):
        output = str(tmp_path / "run")
        claim(output, prepared(input).record, overwrite=False)
        assert claim(output, prepared(input).record, overwrite=False) == 0
        with pytest.raises(UsageError, match="with other batch_size: "):
            claim(output, prepared(input, "--batch_size=1").record, overwrite=False)


def test_record(input):
    record = prepared(input, "--runner=FnApiRunner").record
    assert record.status == "running"
    assert record.beam_flags == ("--runner=FnApiRunner",)
    assert {"apache-beam", "tensorflow", "numpy", "pillow", "pyarrow"} == record.versions.keys()
    assert record.identity["input"][0] == {
        "path": str(input),
        "size": input.stat().st_size,
        "modified": input.stat().st_mtime,
        "label": "pairs.parquet",
        "etag": "",
    }
