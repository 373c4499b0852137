"""Runs that are killed, run out of disk or overlap, and are started again."""

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from support import containers, shards
from support.killed_run import finished_chunks, kill_after
from support.pictures import encode, smooth

from pipeline.errors import CRASH, INCOMPLETE, OK, USAGE
from pipeline.run import main
from pipeline.status import main as status
from transforms.storage import worker_files

pytestmark = pytest.mark.heavy

PAIRS, CHUNK_PAIRS = 48, 4


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str | bytes]]:
    return [
        {
            "id": str(number),
            "generated": encode(smooth(64, 64, number), "JPEG"),
            "target": encode(smooth(64, 64, number)),
        }
        for number in range(PAIRS)
    ]


@pytest.fixture(scope="module")
def parquet(pairs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "pairs.parquet"
    shards.write_parquet(path, pa.Table.from_pylist(pairs))
    return path


def arguments(parquet: Path, output: Path, *flags: str) -> list[str]:
    sizes = (f"--chunk_pairs={CHUNK_PAIRS}", "--batch_size=4")
    return ["--runner=DirectRunner", f"--input={parquet}", f"--output={output}", *sizes, *flags]


@contextmanager
def full_disk(file_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def results(output: Path) -> list[pa.Table]:
    directories = [output / name for name in ("metrics", "optimized") if (output / name).exists()]
    return [pq.read_table(directory).sort_by("source") for directory in directories]


@pytest.fixture(scope="module")
def undisturbed(parquet, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(arguments(parquet, output, "--losses=mae", "--quiet")) == OK
    return output


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--losses=mae,ssim"], id="score"),
        pytest.param(["--losses=lpips_vgg,ssim"], id="score by a network", marks=pytest.mark.slow),
        pytest.param(
            ["--losses=mae,ssim", "--objective=mae + fd_l1", "--optimize", "--max_steps=40", "--patience=40"],
            id="optimize",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_run_resumes(parquet, lpips_weights, tmp_path, capsys, flags):
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "run"
    assert main(arguments(parquet, undisturbed, "--quiet", *flags)) == OK
    finished = kill_after(3, output, *arguments(parquet, output, *flags))

    assert main(arguments(parquet, output, *flags)) == OK
    printed = capsys.readouterr()
    assert f"{len(finished)} chunks are done" in printed.err
    assert "-bound: " in printed.out
    # The killed worker had not lived long enough to report.
    performance = json.loads((output / "run.json").read_text())["performance"]
    assert performance["pairs"] == PAIRS - CHUNK_PAIRS * len(finished)
    after = finished_chunks(output)
    assert {name: after[name] for name in finished} == finished
    assert results(output) == results(undisturbed)
    assert (output / "_SUCCESS").exists()
    assert not (output / "_temporary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("container", ["folders", "tar"])
def test_killed_run_of_image_files_resumes(pairs, undisturbed, tmp_path, container):
    containers.write_containers(tmp_path, pairs)
    output = tmp_path / "run"
    command = [*containers.flags(tmp_path, container), f"--output={output}", "--losses=mae", "--quiet"]
    command += [f"--chunk_pairs={CHUNK_PAIRS}", "--batch_size=4"]
    finished = kill_after(3, output, *command)
    assert main(command) == OK
    assert finished_chunks(output).items() >= finished.items()
    after, before = (
        pq.read_table(run / "metrics").drop_columns("source").sort_by("id") for run in (output, undisturbed)
    )
    assert after == before


def test_what_a_broken_run_took_is_told_and_counted(parquet, tmp_path, monkeypatch, capsys):
    """Workers report after every pair here, not every half minute. The last chunk is done, but not reported."""
    monkeypatch.setattr(worker_files, "_LEAST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(worker_files, "_PAUSES_PER_WRITE", 0)
    output, rename, written = tmp_path / "run", FileSystems.rename, []

    def break_off(sources, targets):
        rename(sources, targets)
        written.extend(target for target in targets if "/metrics/" in target)
        if len(written) == 5:
            raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystems, "rename", break_off)
        assert main(arguments(parquet, output, "--losses=mae", "--quiet")) == CRASH
    assert status([str(output)]) == OK
    told = capsys.readouterr().out
    assert f"{5 * CHUNK_PAIRS} pairs done of {PAIRS}" in told
    assert f", {CHUNK_PAIRS} pairs in " in told
    assert "slowest pairs: " in told
    assert main(arguments(parquet, output, "--losses=mae", "--quiet")) == OK
    performance = json.loads((output / "run.json").read_text())["performance"]
    assert performance["pairs"] == PAIRS - CHUNK_PAIRS
    assert capsys.readouterr().out == ""
    assert not (output / "_temporary").exists()


def test_full_disk_breaks_off_with_one_message_and_resumes(parquet, tmp_path, capfd):
    output = tmp_path / "run"
    losses = "--losses=mae,mse,psnr,charbonnier,sobel_l1,sobel_l2,fd_l1,fd_l2,gdl,multiscale_fd,tv,gmsd,ssim"
    # There is room for run.json, but not for the metrics of so many losses.
    with full_disk(2_500):
        assert main(arguments(parquet, output, losses, "--quiet")) == CRASH
    error = capfd.readouterr().err
    lines = error.splitlines()
    assert len(lines) == 2, error
    assert lines[0].startswith("error: the run broke off: ")
    assert "File too large" in lines[0]
    assert not finished_chunks(output)
    assert sorted(os.listdir(output / "_temporary")) == ["listed.json", "owner.json"]

    assert main(arguments(parquet, output, losses, "--quiet")) == OK
    assert len(pq.read_table(output / "metrics")) == PAIRS


def test_two_runs_in_one_directory(parquet, undisturbed, tmp_path, monkeypatch, capsys):
    """A launcher is killed, its job goes on, and a second run of the same command takes it and ends first."""
    output = tmp_path / "run"
    command = arguments(parquet, output, "--losses=mae", "--quiet")
    rename, written = FileSystems.rename, []

    def second_run_after_some_chunks(sources, targets):
        written.extend(targets)
        if len(written) == 5:
            assert main(command) == OK
            assert (output / "_SUCCESS").exists()
            assert not (output / "_temporary").exists()
        rename(sources, targets)

    monkeypatch.setattr(FileSystems, "rename", second_run_after_some_chunks)
    assert main(command) == CRASH
    assert "another launcher of the same run has taken" in capsys.readouterr().err
    # The first run failed to rename it, the second run renamed it, and the first tried again.
    assert written.count(written[4]) == 3
    assert results(output) == results(undisturbed)
    left = {path.name for path in output.iterdir()} - {"_temporary"}
    assert left == {path.name for path in undisturbed.iterdir()}


class TestInputAndOutputChange:
    """While a run works; each is done to it after its fifth chunk."""

    @pytest.fixture
    def run(self, parquet, tmp_path, monkeypatch):
        path, rename, written = tmp_path / "in" / "pairs.parquet", FileSystems.rename, []
        path.parent.mkdir()
        shutil.copy(parquet, path)

        def disturbed(harm):
            def rename_and_harm(sources, targets):
                rename(sources, targets)
                written.extend(target for target in targets if target.endswith(".parquet"))
                if len(written) == 5 and targets[0].endswith(".parquet"):
                    harm(path, tmp_path / "run")

            monkeypatch.setattr(FileSystems, "rename", rename_and_harm)
            code = main(arguments(path, tmp_path / "run", "--losses=mae", "--quiet"))
            monkeypatch.setattr(FileSystems, "rename", rename)
            return code, path, tmp_path / "run"

        return disturbed

    def test_a_file_that_vanishes_is_read_by_the_next_try(self, run, parquet, capsys):
        code, path, output = run(lambda path, output: path.rename(path.with_suffix(".away")))
        assert code == INCOMPLETE
        assert f"{path} (unavailable)" in capsys.readouterr().err
        assert not (output / "_SUCCESS").exists()
        # Some chunks are read ahead.
        assert 5 <= len(finished_chunks(output)) < PAIRS // CHUNK_PAIRS
        path.with_suffix(".away").rename(path)
        assert main(arguments(path, output, "--losses=mae", "--quiet")) == OK
        assert len(pq.read_table(output / "metrics")) == PAIRS
        assert not list((output / "failures").glob("*"))

    def test_a_file_that_is_replaced(self, run, capsys):
        def replace(path, output):
            shutil.copy(path, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)

        code, path, output = run(replace)
        assert code == INCOMPLETE
        assert f"{path} (changed)" in capsys.readouterr().err
        assert not (output / "_SUCCESS").exists()
        assert main(arguments(path, output, "--losses=mae", "--quiet")) == USAGE
        assert "unfinished run with other input" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("harm", "told"),
        [
            (lambda path, output: shutil.rmtree(output / "metrics"), "files of 5 chunks vanished"),
            (lambda path, output: (output / "metrics" / "stray.parquet").touch(), "files of no chunk, such as stray"),
        ],
    )
    def test_files_of_the_run(self, run, capsys, harm, told):
        code, path, output = run(harm)
        assert code == CRASH
        assert told in capsys.readouterr().err
        assert not (output / "_SUCCESS").exists()
        (output / "metrics" / "stray.parquet").unlink(missing_ok=True)
        assert main(arguments(path, output, "--losses=mae", "--quiet")) == OK
        assert len(pq.read_table(output / "metrics")) == PAIRS

    def test_a_chunk_that_a_power_failure_emptied(self, run, capsys):
        _, path, output = run(lambda path, output: None)
        whole = results(output)
        (output / "_SUCCESS").unlink()
        first = min((output / "metrics").iterdir())
        first.write_bytes(b"")
        assert main(arguments(path, output, "--losses=mae", "--quiet")) == OK
        assert f"scored again: {first.stem}" in capsys.readouterr().err
        assert results(output) == whole
