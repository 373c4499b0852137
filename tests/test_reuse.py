"""Runs with --reuse: what has not changed since an earlier run is copied, and the result is that of a fresh run."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.errors import NOTHING_SCORED
from pipeline.run import OK, USAGE, main
from transforms.schema import CHUNK_KEY, REUSED_KEY
from transforms.worker.sandbox import SandboxError

pytestmark = pytest.mark.heavy

FILES = 3
ROWS = 6
OPTIONS = ("--losses=mae,ssim", "--quiet", "--chunk_pairs=4", "--keep_fields=place")
OPTIMIZED = (*OPTIONS, "--optimize", "--objective=mae", "--max_steps=2")


def write_shard(path: Path, seed: int, place: object = "here") -> None:
    """Pairs, of which one is broken."""
    rows = [
        {
            "id": f"{path.stem}-{number}",
            "generated": b"broken" if number == 2 else encode(noise(seed + number, 16, 20)),
            "target": encode(smooth(16, 20, number)),
            "place": place,
        }
        for number in range(ROWS)
    ]
    shards.write_parquet(path, pa.Table.from_pylist(rows))


@pytest.fixture
def inputs(tmp_path) -> Path:
    root = tmp_path / "in"
    root.mkdir()
    for number in range(FILES):
        write_shard(root / f"{number}.parquet", 10 * number)
    return root


def run(inputs: Path, output: Path, *flags: str, options=OPTIONS) -> dict[str, object]:
    """The content of run.json."""
    assert main([f"--input={inputs}/*.parquet", f"--output={output}", *options, *flags]) == OK
    record: dict[str, object] = json.loads((output / "run.json").read_text())
    return record


def change(path: Path) -> None:
    """Other pairs in a file, a second later."""
    write_shard(path, 77)
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 1))


def content(output: Path) -> dict[str, object]:
    """Everything that a run says of its pairs."""
    found: dict[str, object] = {"summary": json.loads((output / "summary.json").read_text())["losses"]}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = str(path.relative_to(output))
        if name.startswith("metrics/"):
            table = pq.read_table(path)
            metadata = {k: v for k, v in table.schema.metadata.items() if k not in (CHUNK_KEY, REUSED_KEY)}
            found[name] = table.replace_schema_metadata(metadata)
        elif "/" in name:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("options", [OPTIONS, (*OPTIONS, "--metrics_format=csv"), OPTIMIZED], ids=["", "csv", "images"])
def test_the_result_is_that_of_a_fresh_run(inputs, tmp_path, options):
    run(inputs, tmp_path / "old", options=options)
    change(inputs / "1.parquet")
    write_shard(inputs / "3.parquet", 99)
    new = run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}", options=options)
    fresh = run(inputs, tmp_path / "fresh", options=options)
    assert (new["reused"], fresh["reused"]) == (2 * ROWS, 0)
    assert (
        new["counts"]
        == fresh["counts"]
        == {
            **dict.fromkeys(("listed", "read"), 4 * ROWS),
            "scored": 4 * (ROWS - 1),
            "failed": 4,
            **dict.fromkeys(("unread", "files_failed"), 0),
        }
    )
    expected = content(tmp_path / "fresh")
    assert content(tmp_path / "new") == expected
    assert any(name.startswith("optimized/") for name in expected) == (options is OPTIMIZED)


def test_a_run_that_reused_is_reused(inputs, tmp_path):
    for earlier, output in (("", "1"), ("1", "2"), ("2", "3")):
        record = run(inputs, tmp_path / output, *([f"--reuse={tmp_path / earlier}"] if earlier else []))
    assert record["reused"] == FILES * ROWS
    assert content(tmp_path / "3") == content(tmp_path / "1")


def test_other_slices_reuse_the_same_pairs(inputs, tmp_path):
    run(inputs, tmp_path / "old")
    assert run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}", "--slice_by=place")["reused"] == FILES * ROWS
    assert json.loads((tmp_path / "new" / "summary.json").read_text())["slices"]


def test_other_settings_are_told_and_everything_is_scored(inputs, tmp_path, capsys):
    run(inputs, tmp_path / "old")
    options = [option.replace("mae,ssim", "mae") for option in OPTIONS]
    assert (
        run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}", "--crop_border=1", options=options)["reused"] == 0
    )
    told = capsys.readouterr().err
    assert f"--reuse={tmp_path / 'old'}: that run had other crop_border, losses, so every pair is scored" in told


@pytest.mark.parametrize("damage", ["cut", "gone", "of another run"])
def test_damaged_chunks_are_scored(inputs, tmp_path, damage):
    run(inputs, tmp_path / "old")
    first, second, *_ = sorted((tmp_path / "old" / "metrics").iterdir())
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:-10])
    elif damage == "gone":
        first.unlink()
    else:
        first.write_bytes(second.read_bytes())
    record = run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}")
    assert 0 < FILES * ROWS - record["reused"] <= 4
    run(inputs, tmp_path / "fresh")
    assert content(tmp_path / "new") == content(tmp_path / "fresh")


def test_kept_fields_of_another_type_are_read_again(inputs, tmp_path):
    """The types follow from all files, and a new one may change them."""
    for number in range(FILES):
        write_shard(inputs / f"{number}.parquet", number, place=number)
    run(inputs, tmp_path / "old")
    write_shard(inputs / "3.parquet", 3, place=0.5)
    assert run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}")["reused"] == 0
    assert pq.read_table(tmp_path / "new" / "metrics")["place"].type == pa.float64()


def test_an_unfinished_run_that_reuses_is_resumed(inputs, tmp_path):
    run(inputs, tmp_path / "old")
    run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}")
    (tmp_path / "new" / "_SUCCESS").unlink()
    lost, *_ = sorted((tmp_path / "new" / "metrics").iterdir())
    lost.unlink()
    assert run(inputs, tmp_path / "new")["reused"] < FILES * ROWS
    assert content(tmp_path / "new") == content(tmp_path / "old")


class TestRetries:
    """With --retry_failures only failed records are tried again."""

    LIMITED = (*OPTIONS, "--max_image_bytes=500")

    @pytest.fixture
    def inputs(self, tmp_path) -> Path:
        """A file with a broken record, one with pictures beyond a limit, and one without failures."""
        root = tmp_path / "in"
        root.mkdir()
        for name, large in (("0", 1), ("1", 4), ("2", None)):
            rows = [
                {
                    "id": f"{name}-{number}",
                    "generated": encode(noise(number, 40, 40) if number == large else smooth(9, 9, number + 1)),
                    "target": encode(smooth(*((40, 40) if number == large else (9, 9)), number)),
                    "place": "here",
                }
                for number in range(ROWS)
            ]
            if name == "0":
                rows[2]["generated"] = b"broken"
            shards.write_parquet(root / f"{name}.parquet", pa.Table.from_pylist(rows))
        return root

    @pytest.mark.parametrize(
        ("reasons", "reused", "failed"),
        [("all", 3 * ROWS - 3, 1), ("too_many_bytes", 3 * ROWS - 2, 1), ("unknown_format", 3 * ROWS - 1, 3)],
    )
    def test_a_raised_limit(self, inputs, tmp_path, reasons, reused, failed):
        run(inputs, tmp_path / "old", options=self.LIMITED)
        old = json.loads((tmp_path / "old" / "run.json").read_text())
        assert (old["counts"]["scored"], old["counts"]["failed"]) == (3 * ROWS - 3, 3)
        flags = (f"--reuse={tmp_path / 'old'}", f"--retry_failures={reasons}")
        new = run(inputs, tmp_path / "new", *flags)
        assert (new["reused"], new["counts"]["failed"], new["counts"]["read"]) == (reused, failed, 3 * ROWS)
        if failed == 1:
            run(inputs, tmp_path / "fresh")
            assert content(tmp_path / "new") == content(tmp_path / "fresh")
        # The earlier run stays as it was.
        assert json.loads((tmp_path / "old" / "run.json").read_text()) == old

    def test_other_settings_are_those_of_another_run(self, inputs, tmp_path, capsys):
        run(inputs, tmp_path / "old", options=self.LIMITED)
        flags = (f"--reuse={tmp_path / 'old'}", "--retry_failures=all", "--background=black")
        assert run(inputs, tmp_path / "new", *flags)["reused"] == 0
        assert "that run had other images" in capsys.readouterr().err

    def test_chunks_with_optimized_images_are_optimized_as_a_whole(self, inputs, tmp_path):
        run(inputs, tmp_path / "old", options=(*OPTIMIZED, "--max_image_bytes=500"))
        flags = (f"--reuse={tmp_path / 'old'}", "--retry_failures=all")
        assert run(inputs, tmp_path / "new", *flags, options=OPTIMIZED)["reused"] == 3 * ROWS - 2 * 4 + 2
        run(inputs, tmp_path / "fresh", options=OPTIMIZED)
        assert content(tmp_path / "new") == content(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--input={inputs}/*.parquet", "--output={root}/new", "--reuse={root}/nowhere"],
            "--reuse={root}/nowhere: {root}/nowhere is not a run directory: there is no {root}/nowhere/run.json; name",
        ),
        (["--input={inputs}/*.parquet", "--output={root}/old", "--reuse={root}/old/"], "a directory of its own"),
        (
            ["--generated=a", "--target=b", "--output={root}/new", "--reuse=x", "--optimize", "--objective=mae"],
            "pairloss pack",
        ),
    ],
)
def test_wrong_requests(inputs, tmp_path, capsys, flags, words):
    run(inputs, tmp_path / "old")
    assert main([flag.format(inputs=inputs, root=tmp_path) for flag in flags]) == USAGE
    assert words.format(root=tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("forged", "words"),
    [
        ({"images": 7}, "/old is not a run directory: identity.images"),
        ({"input": ["x"]}, "/old: its input files are not those of a run"),
        ({"fields": None}, "/old is not a run directory: identity.fields"),
    ],
)
def test_a_forged_record_of_the_earlier_run(inputs, tmp_path, capsys, forged, words):
    record = {"identity": {"input": [], **forged}, "fingerprint": "f"}
    shards.write(tmp_path / "old" / "run.json", json.dumps(record).encode())
    flags = [f"--input={inputs}/*.parquet", f"--output={tmp_path}/new", f"--reuse={tmp_path}/old", *OPTIONS]
    assert main([*flags, "--retry_failures=all"]) == USAGE
    assert words in capsys.readouterr().err


def test_the_threads_end_with_the_step(inputs, tmp_path, monkeypatch):
    made, ended = [], []

    class Pool(ThreadPoolExecutor):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

        def shutdown(self, *arguments, **settings):
            super().shutdown(*arguments, **settings)
            ended.append(self)

    monkeypatch.setattr("transforms.steps.reading.ThreadPoolExecutor", Pool)
    run(inputs, tmp_path / "old")
    run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}")
    assert made
    assert made == ended


class TestImagesThatRecordsName:
    """A manifest tells the names of its images, and nothing about changes in them."""

    @pytest.fixture
    def inputs(self, tmp_path) -> Path:
        root = tmp_path / "in"
        named = []
        for number in range(ROWS):
            row = {"id": str(number), "generated": f"a/{number}.png", "target": f"b/{number}.png", "place": "here"}
            shards.write(root / row["generated"], b"broken" if number == 2 else encode(noise(number, 9, 9)))
            shards.write(root / row["target"], encode(smooth(9, 9, number)))
            named.append(row)
        shards.write_parquet(root / "paths.parquet", pa.Table.from_pylist(named))
        return root

    def test_they_are_scored_again(self, inputs, tmp_path, capsys):
        run(inputs, tmp_path / "old")
        shards.write(inputs / "a/0.png", encode(noise(7, 9, 9)))
        for name, earlier in (("1", "old"), ("2", "1")):
            assert run(inputs, tmp_path / name, f"--reuse={tmp_path / earlier}")["reused"] == 0
        run(inputs, tmp_path / "fresh")
        assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "fresh")

    def test_only_failures_are_tried_again(self, inputs, tmp_path):
        run(inputs, tmp_path / "old")
        shards.write(inputs / "a/2.png", encode(noise(7, 9, 9)))
        shards.write(inputs / "a/0.png", b"broken")
        for name, earlier, reused in (("1", "old", ROWS - 1), ("2", "1", ROWS)):
            flags = (f"--reuse={tmp_path / earlier}", "--retry_failures=all")
            record = run(inputs, tmp_path / name, *flags)
            assert (record["reused"], record["counts"]["failed"]) == (reused, 0)
        # Not even through a run in between are the images taken for unchanged.
        assert run(inputs, tmp_path / "3", f"--reuse={tmp_path / '2'}")["counts"]["failed"] == 1


def test_a_chunk_that_took_too_long_is_tried_again(inputs, tmp_path, monkeypatch):
    """Its one failure is that of the file and names no pair."""

    def slow(*_):
        raise SandboxError("timed_out", "it took longer than 1 s")

    with monkeypatch.context() as patch:
        patch.setattr("transforms.reading.read_chunks.read_chunks", slow)
        assert main([f"--input={inputs}/*.parquet", f"--output={tmp_path}/old", *OPTIONS]) == NOTHING_SCORED
    new = run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}", "--retry_failures=timed_out")
    assert (new["reused"], new["counts"]["scored"]) == (0, FILES * (ROWS - 1))
    run(inputs, tmp_path / "fresh")
    assert content(tmp_path / "new") == content(tmp_path / "fresh")
