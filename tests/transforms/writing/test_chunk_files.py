"""Files of a chunk: whole or absent, under the same names on every try, wherever the run's directory lies."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from transforms.failure import NOT_DONE, Failure
from transforms.losses.plan import Plan
from transforms.schema import OPTIMIZED_SCHEMA, PRECISION_KEY, Chunk, ScoredChunk, metrics_schema
from transforms.storage.run_files import RunFiles, delete_directory, delete_file, list_files
from transforms.work import Work
from transforms.writing.chunk_files import (
    ChangedOutputError,
    check_listing,
    chunk_directories,
    find_done,
    read_chunk,
    write_chunk,
)
from transforms.writing.metrics_text import TEXT_FORMATS
from transforms.writing.optimized_images import OPTIMIZED_FORMATS

CHUNK = Chunk("in-0123abcd-000000000-000000003", "in.parquet", "parquet", 0, 3)
FAILURE = Failure("b", "in.parquet#1", "decode", "truncated", "ends\tearly, «ünï» [red]\u2028", "ab" * 32, 7)
ODD_NAMES = ["run", "with space", "ünï-日本", "run[1]", "[ab]", "a*b", "what?", "{x}", "a#b%20c", "'quo\"ted'", "-dash"]

KEPT = {
    "bool": pa.array([True, None]),
    "int": pa.array([2**64 - 1, None], pa.uint64()),
    "half": pa.array([0.5, None], pa.float16()),
    "double": pa.array([0.1, None]),
    "text": pa.array(["ünï", None]),
    "day": pa.array([19000, None], pa.int32()).cast(pa.date32()),
    "milliseconds": pa.array([-1, None]).cast(pa.timestamp("ms")),
    "nanoseconds": pa.array([1, None]).cast(pa.timestamp("ns", "Europe/Berlin")),
}


def scored(chunk: Chunk = CHUNK, failures: tuple[Failure, ...] = (FAILURE,)) -> ScoredChunk:
    row = {"id": "a", "source": "in.parquet#0", "height": 4, "width": 5, "mae": 0.1, "psnr": float("inf"), "notes": []}
    other = row | {"id": "c", "source": "in.parquet#2", "mae": None, "notes": ["too_small:mae", "target:gray"]}
    schema = metrics_schema(Plan(("mae", "psnr")).columns).with_metadata({PRECISION_KEY: b"float32"})
    return ScoredChunk(chunk, pa.Table.from_pylist([row, other], schema=schema), failures)


def same(one: ScoredChunk, other: ScoredChunk) -> bool:
    return (
        (one.chunk, one.failures) == (other.chunk, other.failures)
        and one.metrics.equals(other.metrics)
        and one.metrics.schema.metadata == other.metrics.schema.metadata
    )


def everything_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


class TestRoundTrip:
    @pytest.mark.parametrize("failures", [(), (FAILURE,), (FAILURE, replace(FAILURE, id="c", scope="file"))])
    def test_as_it_was(self, tmp_path, failures):
        files = RunFiles(str(tmp_path / "run"))
        write_chunk(scored(failures=failures), files)
        assert same(read_chunk(CHUNK, files), scored(failures=failures))

    def test_what_the_work_took_is_not_written(self, tmp_path):
        """The files have the same bits however long they took."""
        contents = []
        for seconds in (1.0, 2.0):
            files = RunFiles(str(tmp_path / str(seconds)))
            chunk = replace(CHUNK, listing_seconds=seconds)
            write_chunk(replace(scored(chunk), work=Work(2, {"reading": seconds})), files)
            contents.append({path.name: path.read_bytes() for path in Path(files.output).rglob("*.*")})
        assert contents[0] == contents[1]
        assert len(contents[0]) == 2

    def test_no_pair_scored(self, tmp_path):
        files = RunFiles(str(tmp_path / "run"))
        empty = replace(scored(), metrics=scored().metrics.slice(0, 0))
        write_chunk(empty, files)
        assert same(read_chunk(CHUNK, files), empty)

    @pytest.mark.parametrize("name", KEPT)
    def test_kept_fields(self, tmp_path, name):
        schema = metrics_schema(Plan(("mae",)).columns, [pa.field(name, KEPT[name].type)])
        schema = schema.with_metadata({PRECISION_KEY: b"float32"})
        columns = {
            "id": ["a", "b"],
            "source": ["f#0", "f#1"],
            "height": [4, 4],
            "width": [5, 5],
            name: KEPT[name],
            "mae": [0.5, 0.25],
            "notes": [[], []],
        }
        kept = ScoredChunk(CHUNK, pa.table(columns, schema=schema))
        files = RunFiles(str(tmp_path / "run"))
        write_chunk(kept, files)
        assert same(read_chunk(CHUNK, files), kept)

    def test_file_names(self, tmp_path):
        write_chunk(scored(), RunFiles(str(tmp_path)))
        assert everything_below(tmp_path) == [f"failures/{CHUNK.name}.jsonl", f"metrics/{CHUNK.name}.parquet"]

    def test_readable_by_others(self, tmp_path):
        files = RunFiles(str(tmp_path))
        write_chunk(scored(), files)
        second = replace(CHUNK, name="other")
        write_chunk(scored(second, ()), files)
        assert pq.read_table(tmp_path / "metrics").num_rows == 4
        (line,) = Path(files.failures(CHUNK)).read_text().splitlines()
        assert json.loads(line)["message"] == FAILURE.message
        assert not Path(files.failures(second)).exists()

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_directories(self, tmp_path, name):
        directory = tmp_path / name / "run"
        files = RunFiles(str(directory))
        write_chunk(scored(), files)
        assert everything_below(directory) == [f"failures/{CHUNK.name}.jsonl", f"metrics/{CHUNK.name}.parquet"]
        assert same(read_chunk(CHUNK, files), scored())

    def test_again_with_another_result(self, tmp_path):
        files = RunFiles(str(tmp_path))
        write_chunk(scored(), files)
        other = replace(scored(), metrics=scored().metrics.slice(1))
        write_chunk(other, files)
        assert same(read_chunk(CHUNK, files), other)

    def test_failures_of_an_earlier_try_do_not_stay(self, tmp_path):
        files = RunFiles(str(tmp_path))
        files.write_whole(files.failures(CHUNK), b'{"id": "of a try that was killed before its metrics"}\n')
        write_chunk(scored(failures=()), files)
        assert read_chunk(CHUNK, files).failures == ()
        assert everything_below(tmp_path) == [f"metrics/{CHUNK.name}.parquet"]


class TestNewFormats:
    """An output format is one row of its table."""

    def test_of_metrics(self, tmp_path, monkeypatch):
        monkeypatch.setitem(TEXT_FORMATS, "ids", lambda metrics: "\n".join(metrics["id"].to_pylist()))
        files = RunFiles(str(tmp_path))
        write_chunk(scored(failures=()), files, "ids")
        assert everything_below(tmp_path) == [f"metrics/{CHUNK.name}.parquet", f"metrics_ids/{CHUNK.name}.ids"]
        assert (tmp_path / f"metrics_ids/{CHUNK.name}.ids").read_text() == "a\nc"
        assert str(tmp_path / "metrics_ids") in chunk_directories(files)

    def test_of_optimized_images(self, tmp_path, monkeypatch):
        def as_raw(images, chunk):
            return {f"{chunk}-{row['id']}.raw": row["image"] for row in images.to_pylist()}

        monkeypatch.setitem(OPTIMIZED_FORMATS, "raw", as_raw)
        images = pa.table({"id": ["a"], "source": ["in.parquet#0"], "image": [b"pixels"]}, schema=OPTIMIZED_SCHEMA)
        write_chunk(replace(scored(failures=()), optimized=images), RunFiles(str(tmp_path)), optimized_format="raw")
        assert (tmp_path / f"optimized/{CHUNK.name}-a.raw").read_bytes() == b"pixels"


class TestSplitDone:
    CHUNKS = tuple(replace(CHUNK, name=f"in-{n}", start=3 * n, stop=3 * n + 3) for n in range(4))

    @pytest.mark.parametrize("done", [(), (0,), (1, 3), (0, 1, 2), (0, 1, 2, 3)], ids=str)
    def test_metrics_tell(self, tmp_path, done):
        files = RunFiles(str(tmp_path))
        for number in done:
            write_chunk(scored(self.CHUNKS[number]), files)
        found = list(find_done(self.CHUNKS, files))
        assert [one.chunk if isinstance(one, ScoredChunk) else one for one in found] == list(self.CHUNKS)
        assert [number for number, one in enumerate(found) if isinstance(one, ScoredChunk)] == list(done)

    def test_failures_alone_are_not_done(self, tmp_path):
        files = RunFiles(str(tmp_path))
        files.write_whole(files.failures(CHUNK), b"{}\n")
        assert list(find_done((CHUNK,), files)) == [CHUNK]

    @pytest.mark.parametrize(
        ("harm", "reason"),
        [
            (lambda files: cut(files.metrics(CHUNK), 100), "cannot be read"),
            (lambda files: cut(files.metrics(CHUNK), 0), "cannot be read"),
            (lambda files: zero(files.metrics(CHUNK)), "cannot be read"),
            (lambda files: cut(files.failures(CHUNK), 6), "cannot be read"),
            (lambda files: cut(files.failures(CHUNK), 0), "2 metrics and 0 failures"),
            (lambda files: delete_file(files.failures(CHUNK)), "2 metrics and 0 failures"),
            (lambda files: write_chunk(scored(), files, fingerprint="other"), "another chunk or run"),
            (
                lambda files: shutil.copy(files.metrics(other_chunk(files)), files.metrics(CHUNK)),
                "another chunk or run",
            ),
        ],
    )
    def test_what_a_power_failure_leaves_is_to_do(self, tmp_path, harm, reason):
        files = RunFiles(str(tmp_path))
        write_chunk(scored(), files, fingerprint="f")
        assert same(next(find_done((CHUNK,), files, "f")), scored())
        harm(files)
        (found,) = find_done((CHUNK,), files, "f")
        assert isinstance(found, Chunk)
        assert reason in found.damage
        assert replace(found, damage="") == CHUNK


def cut(path: str, size: int) -> None:
    os.truncate(path, size)


def zero(path: str) -> None:
    Path(path).write_bytes(bytes(os.path.getsize(path)))


def other_chunk(files: RunFiles) -> Chunk:
    chunk = replace(CHUNK, name="other")
    write_chunk(scored(chunk), files, fingerprint="f")
    return chunk


class TestNotDone:
    @pytest.mark.parametrize("reason", list(NOT_DONE))
    def test_only_failures_are_written(self, tmp_path, reason):
        files = RunFiles(str(tmp_path))
        unread = replace(FAILURE, scope="file", reason=reason)
        write_chunk(replace(scored(failures=(unread,)), metrics=scored().metrics[:0]), files, "csv")
        assert everything_below(tmp_path) == [f"failures/{CHUNK.name}.jsonl"]
        assert list(find_done((CHUNK,), files)) == [CHUNK]
        write_chunk(scored(failures=()), files)
        assert everything_below(tmp_path) == [f"metrics/{CHUNK.name}.parquet"]


class TestCheckListing:
    @pytest.mark.parametrize("format", OPTIMIZED_FORMATS)
    def test_optimized_images_that_vanished(self, tmp_path, format):
        files = RunFiles(str(tmp_path))
        images = pa.Table.from_pylist(
            [{"id": id, "source": f"in.parquet#{id}", "image": b"pixels"} for id in "ac"], OPTIMIZED_SCHEMA
        )
        written = write_chunk(replace(scored(), optimized=images), files, "csv", format)
        assert written.optimized is None
        (found,) = find_done((CHUNK,), files)
        assert found.optimized_files == written.optimized_files != ()
        number = len(written.optimized_files)
        check_listing(files, {CHUNK.name}, {CHUNK.name}, number)
        gone = sorted((tmp_path / "optimized").iterdir())[-1]
        gone.unlink()
        with pytest.raises(ChangedOutputError, match=f"1 of {number} files vanished from .*optimized"):
            check_listing(files, {CHUNK.name}, {CHUNK.name}, number)
        (to_do,) = find_done((CHUNK,), files)
        assert to_do.damage == f"optimized/{gone.name} is gone"

    def test_a_text_that_vanished_is_written_again(self, tmp_path):
        files = RunFiles(str(tmp_path))
        write_chunk(scored(), files, "csv")
        (tmp_path / f"metrics_csv/{CHUNK.name}.csv").unlink()
        (to_do,) = find_done((CHUNK,), files)
        assert to_do.damage == f"metrics_csv/{CHUNK.name}.csv is gone"

    @pytest.fixture
    def files(self, tmp_path):
        files = RunFiles(str(tmp_path))
        for name in ("a", "b"):
            write_chunk(scored(replace(CHUNK, name=name)), files, "csv")
        return files

    def test_all_there(self, files):
        stale = replace(CHUNK, name="stale-000000000-000000000")
        files.write_whole(files.failures(stale), b"")
        check_listing(files, {"a", "b"}, {"a", "b"})
        assert "failures/stale" not in str(everything_below(Path(files.output)))

    @pytest.mark.parametrize(
        ("harm", "problem"),
        [
            (lambda run: (run / "metrics/a.parquet").unlink(), "files of 1 chunks vanished from .*metrics, such as a"),
            (lambda run: (run / "failures/b.jsonl").unlink(), "files of 1 chunks vanished from .*failures, such as b"),
            (lambda run: (run / "metrics_csv/b.csv").unlink(), "vanished from .*metrics_csv, such as b"),
            (lambda run: shutil.rmtree(run / "metrics"), "files of 2 chunks vanished"),
            (lambda run: (run / "metrics/zz.parquet").touch(), "metrics holds 1 files of no chunk, such as zz"),
        ],
    )
    def test_not_as_it_was_written(self, files, harm, problem):
        harm(Path(files.output))
        with pytest.raises(ChangedOutputError, match=problem):
            check_listing(files, {"a", "b"}, {"a", "b"})


class TestErrors:
    def test_metrics_come_last(self, tmp_path, monkeypatch):
        """The files that a killed worker leaves never look done."""
        renamed = []
        real = FileSystems.rename
        monkeypatch.setattr(FileSystems, "rename", lambda *paths: renamed.append(paths[1]) or real(*paths))
        files = RunFiles(str(tmp_path))
        write_chunk(scored(), files)
        assert renamed == [[files.failures(CHUNK)], [files.metrics(CHUNK)]]

    @pytest.mark.parametrize("blocked", ["metrics", "failures"])
    def test_file_in_place_of_a_directory(self, tmp_path, blocked):
        (tmp_path / blocked).write_text("in the way")
        with pytest.raises(OSError, match=blocked):
            write_chunk(scored(), RunFiles(str(tmp_path)))
        left = {"metrics": [f"failures/{CHUNK.name}.jsonl", "metrics"], "failures": ["failures"]}
        assert everything_below(tmp_path) == left[blocked]

    def test_directory_in_place_of_the_file(self, tmp_path):
        files = RunFiles(str(tmp_path))
        os.makedirs(files.metrics(CHUNK))
        with pytest.raises(OSError, match="Rename operation failed"):
            write_chunk(scored(failures=()), files)
        assert everything_below(tmp_path) == []

    def test_output_below_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            write_chunk(scored(), RunFiles(str(tmp_path / "file" / "run")))

    @pytest.mark.parametrize("odd", ["run", "run[1]*"])
    def test_disk_full_while_writing(self, tmp_path, monkeypatch, odd):
        files = RunFiles(str(tmp_path / odd))
        real = FileSystems.create

        class Full:
            """A file that takes a few bytes only."""

            def __init__(self, path, **options):
                self.file = real(path, **options)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self.file.close()

            def write(self, content):
                self.file.write(content[:10])
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(FileSystems, "create", Full)
        with pytest.raises(OSError, match="No space left"):
            write_chunk(scored(), files)
        assert everything_below(tmp_path / odd) == []

    def test_rename_fails(self, tmp_path, monkeypatch):
        files = RunFiles(str(tmp_path))
        write_chunk(scored(), files)
        before = Path(files.metrics(CHUNK)).read_bytes()

        def fail(*_):
            raise BeamIOError("Rename operation failed", {})

        monkeypatch.setattr(FileSystems, "rename", fail)
        with pytest.raises(BeamIOError):
            write_chunk(replace(scored(), failures=(), metrics=scored().metrics.slice(1)), files)
        assert Path(files.metrics(CHUNK)).read_bytes() == before
        assert list(list_files(files.temporary)) == []


class TestSecondRun:
    """Another run in the same directory ends, and deletes what it takes for left behind."""

    @staticmethod
    def tidy_up(files, monkeypatch, times):
        real, left = FileSystems.rename, [None] * times

        def rename(*paths):
            if left:
                left.pop()
                files.delete_temporaries()
            return real(*paths)

        monkeypatch.setattr(FileSystems, "rename", rename)

    @pytest.mark.parametrize("times", [1, 2, 4])
    def test_what_vanished_is_written_again(self, tmp_path, monkeypatch, times):
        files = RunFiles(str(tmp_path))
        self.tidy_up(files, monkeypatch, times)
        write_chunk(scored(), files)
        assert same(read_chunk(CHUNK, files), scored())
        assert list(list_files(files.temporary)) == []

    def test_never_in_silence(self, tmp_path, monkeypatch):
        files = RunFiles(str(tmp_path))
        self.tidy_up(files, monkeypatch, 1000)
        with pytest.raises(OSError, match="No such file"):
            write_chunk(scored(failures=()), files)
        assert everything_below(tmp_path) == []

    def test_a_file_that_cannot_be_deleted_does_not_break_the_end(self, tmp_path, monkeypatch):
        """As where a live worker makes a new file in the directory that is just being deleted."""
        files = RunFiles(str(tmp_path))
        Path(files.temporary, "of a worker").mkdir(parents=True)

        def refuse(*_, **__):
            raise OSError(39, "Directory not empty")

        monkeypatch.setattr(os, "rmdir", refuse)
        files.delete_temporaries()
        assert Path(files.temporary).exists()


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
class TestFilesOfOddDirectories:
    @pytest.fixture
    def directory(self, tmp_path, monkeypatch, name, relative):
        monkeypatch.chdir(tmp_path)
        (tmp_path / name / "below").mkdir(parents=True)
        for file in ("a", ".hidden", "below/c"):
            (tmp_path / name / file).touch()
        (tmp_path / "beside").touch()
        return name if relative else str(tmp_path / name)

    def test_list(self, directory):
        expected = [os.path.join(directory, file) for file in (".hidden", "a", "below/c")]
        assert sorted(list_files(directory)) == expected[:2]
        assert sorted(list_files(directory, deep=True)) == expected
        assert list(list_files(f"{directory}/absent")) == []

    def test_delete(self, tmp_path, name, directory):
        delete_file(f"{directory}/a")
        delete_file(f"{directory}/a")
        assert everything_below(tmp_path) == sorted([f"{name}/.hidden", "beside", f"{name}/below/c"])
        delete_directory(directory)
        delete_directory(directory)
        assert everything_below(tmp_path) == ["beside"]
        assert not os.path.exists(directory)
