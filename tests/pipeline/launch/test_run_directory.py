"""The run's directory: claimed, resumed or refused; what is not ours stays."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import Forbidden

from pipeline.errors import UsageError
from pipeline.launch.run_directory import claim, fingerprint
from transforms.storage.json_files import read_json
from transforms.storage.run_record import RunRecord


def record_of(**identity: object) -> RunRecord:
    identity = {"losses": ["mae"], "chunk_pairs": 256} | identity
    return RunRecord(fingerprint=fingerprint(identity), identity=identity, started=1.0)


def read_record(output: Path) -> RunRecord:
    return RunRecord.from_json(read_json(str(output / "run.json")))


RECORD = record_of()
CLAIMED = ["_temporary/owner.json", "run.json"]


@pytest.fixture(params=["run", "run [1]*", "ünï/run?"])
def output(request, tmp_path):
    """Path of a directory that is not there yet."""
    return tmp_path / request.param


def make(output: Path, *names: str) -> None:
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(name)


def run_in(output: Path, *names: str, record=RECORD) -> None:
    """The traces of an earlier run: its record, and these files."""
    claim(str(output), record, overwrite=False)
    make(output, *names)


def files_in(output: Path) -> list[str]:
    return sorted(str(path.relative_to(output)) for path in output.rglob("*") if not path.is_dir())


FINISHED = ("metrics/a.parquet", "metrics/b.parquet", "failures/a.jsonl", "summary.json", "_SUCCESS")


class TestClaim:
    def test_new_directory(self, output):
        assert claim(str(output), RECORD, overwrite=False) == 0
        assert files_in(output) == CLAIMED
        assert read_record(output) == RECORD

    def test_empty_directory(self, output):
        output.mkdir(parents=True)
        assert claim(str(output), RECORD, overwrite=False) == 0

    def test_relative_directory(self, output, monkeypatch):
        output.mkdir(parents=True)
        monkeypatch.chdir(output.parent)
        run_in(Path(output.name), "metrics/a.parquet")
        assert claim(output.name, RECORD, overwrite=False) == 1
        assert claim(f"./{output.name}", RECORD, overwrite=True) == 0
        assert files_in(output) == CLAIMED

    def test_after_a_claim_that_was_cut_short(self, output):
        make(output, "_temporary/0123")
        assert claim(str(output), RECORD, overwrite=False) == 0

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "metrics/a.parquet", "_SUCCESS", "a/b/c"])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_files_of_others(self, output, name, overwrite):
        make(output, name)
        with pytest.raises(UsageError, match="is not empty and holds no run: give an empty or a new directory"):
            claim(str(output), RECORD, overwrite)
        assert files_in(output) == [name]

    @pytest.mark.parametrize("content", ["{}", "[]", '{"name": "of another program"}', "null"])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_run_json_of_another_program(self, output, content, overwrite):
        make(output, "run.json", "metrics/theirs")
        (output / "run.json").write_text(content)
        with pytest.raises(UsageError, match="holds no run"):
            claim(str(output), RECORD, overwrite)
        assert files_in(output) == ["metrics/theirs", "run.json"]

    def test_damaged_run_json(self, output):
        make(output, "run.json")
        with pytest.raises(UsageError, match="cannot use --output"):
            claim(str(output), RECORD, overwrite=False)


class TestResume:
    @pytest.mark.parametrize("done", [0, 1, 3])
    def test_same_fingerprint(self, output, done):
        chunks = [f"metrics/{number}.parquet" for number in range(done)]
        run_in(output, *chunks, "failures/0.jsonl", "_temporary/left")
        assert claim(str(output), replace(RECORD, started=2.0), overwrite=False) == done
        assert files_in(output) == sorted([*chunks, "failures/0.jsonl", "_temporary/left", *CLAIMED])
        assert read_record(output).started == 2.0

    @pytest.mark.parametrize(
        ("identity", "told"),
        [
            ({"losses": ["mse"]}, "with other losses: "),
            ({"losses": ["mse"], "chunk_pairs": 1}, "with other losses, chunk_pairs: "),
            ({"version": "0.2"}, "with other version: "),
        ],
    )
    def test_other_fingerprint(self, output, identity, told):
        run_in(output, "metrics/a.parquet")
        before = (output / "run.json").read_bytes()
        with pytest.raises(UsageError, match="unfinished run") as caught:
            claim(str(output), record_of(**identity), overwrite=False)
        assert told in str(caught.value)
        assert "--overwrite" in str(caught.value)
        assert (output / "run.json").read_bytes() == before

    def test_finished(self, output):
        run_in(output, *FINISHED)
        with pytest.raises(UsageError, match="holds a finished run: give another --output, or --overwrite"):
            claim(str(output), RECORD, overwrite=False)
        assert files_in(output) == sorted([*FINISHED, *CLAIMED])


class TestOverwrite:
    @pytest.mark.parametrize("names", [FINISHED, FINISHED[:3], ()], ids=["finished", "unfinished", "just begun"])
    @pytest.mark.parametrize("record", [RECORD, record_of(losses=["mse"])], ids=["same", "other"])
    def test_deletes_a_run(self, output, names, record):
        run_in(output, *names, "_temporary/left")
        assert claim(str(output), record, overwrite=True) == 0
        assert files_in(output) == CLAIMED
        assert read_record(output) == record

    def test_keeps_what_no_run_wrote(self, output):
        run_in(output, *FINISHED, "verdict.json", "report.html", "mine.html", "mine/metrics/a.parquet")
        make(output.parent, "beside")
        assert claim(str(output), RECORD, overwrite=True) == 0
        assert files_in(output) == ["_temporary/owner.json", "mine.html", "mine/metrics/a.parquet", "run.json"]
        assert (output.parent / "beside").exists()

    def test_new_directory(self, output):
        assert claim(str(output), RECORD, overwrite=True) == 0
        assert files_in(output) == CLAIMED

    @pytest.mark.parametrize("record", [RECORD, record_of(losses=["mse"])], ids=["same", "other"])
    def test_killed_while_it_deletes(self, output, monkeypatch, record):
        """The next launch of that run, without --overwrite, deletes the rest, whose files are not its own."""
        from pipeline.launch import run_directory

        def kill(_):
            raise KeyboardInterrupt

        run_in(output, *FINISHED)
        with monkeypatch.context() as patch:
            patch.setattr(run_directory, "delete_directory", kill)
            with pytest.raises(KeyboardInterrupt):
                claim(str(output), record, overwrite=True)
        assert "metrics/a.parquet" in files_in(output)
        with pytest.raises(UsageError, match="holds an unfinished run with other"):
            claim(str(output), record_of(losses=["psnr"]), overwrite=False)
        assert claim(str(output), record, overwrite=False) == 0
        assert files_in(output) == CLAIMED
        assert read_record(output) == record

    @pytest.mark.heavy
    def test_cut_short(self, output, monkeypatch):
        """The rest is still recognized as a run, but no longer as a finished one."""
        from pipeline.launch import run_directory

        def fail(_):
            raise OSError("the network is gone")

        run_in(output, *FINISHED)
        with monkeypatch.context() as patch:
            patch.setattr(run_directory, "delete_directory", fail)
            with pytest.raises(UsageError, match="the network is gone"):
                claim(str(output), RECORD, overwrite=True)
        assert "_SUCCESS" not in files_in(output)
        assert claim(str(output), RECORD, overwrite=True) == 0
        assert files_in(output) == CLAIMED


class TestUnusable:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_below_a_file(self, tmp_path, overwrite):
        make(tmp_path, "file")
        for output in (tmp_path / "file", tmp_path / "file" / "run"):
            with pytest.raises(UsageError, match=r"cannot use --output=.*give a directory that can be written to"):
                claim(str(output), RECORD, overwrite)

    @pytest.mark.parametrize("output", ["nonsense://bucket/run", "s4://b"])
    def test_unknown_scheme(self, output):
        with pytest.raises(UsageError, match=f"cannot use --output={output}"):
            claim(output, RECORD, overwrite=False)

    def test_object_store_says_no(self, tmp_path, monkeypatch):
        def refuse(_):
            raise Forbidden("no access to the bucket")

        monkeypatch.setattr(FileSystems, "exists", refuse)
        with pytest.raises(UsageError, match="no access to the bucket"):
            claim(str(tmp_path / "run"), RECORD, overwrite=False)


def test_fingerprint_is_of_the_content():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint(json.loads('{"b": [2], "a": 1}'))
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
