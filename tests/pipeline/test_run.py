"""The command `pairloss run` as a whole: what is read when, and what is printed."""

import pyarrow as pa
import pytest
from support import shards
from support.pictures import encode, smooth

from pipeline import run
from pipeline.errors import CRASH, NOTHING_SCORED, OK, USAGE
from pipeline.launch import job
from transforms.images.sandboxed import DECODE_TASK
from transforms.worker.sandbox import Sandbox

FAILED = NOTHING_SCORED


@pytest.fixture
def pairs(tmp_path) -> list[str]:
    image = encode(smooth(16, 16, 0))
    path = tmp_path / "pairs.parquet"
    shards.write_parquet(path, pa.Table.from_pylist([{"generated": image, "target": image}]))
    return [f"--input={path}", "--losses=mae", "--quiet"]


@pytest.mark.heavy
def test_rules_and_baseline_are_read_once_at_the_start(pairs, tmp_path, monkeypatch, capsys):
    assert run.main([*pairs, f"--output={tmp_path / 'good'}"]) == OK
    rules, baseline = tmp_path / "rules.yaml", tmp_path / "baseline.json"
    rules.write_text("rules:\n  - rule: pairs\n    min: 2\n")
    baseline.write_bytes((tmp_path / "good" / "summary.json").read_bytes())
    run_job = job.run_job

    def run_and_change(*arguments):
        run_job(*arguments)
        rules.write_text("rules: [{rule: pairs, min: 1}]")
        baseline.unlink()

    monkeypatch.setattr(job, "run_job", run_and_change)
    flags = [f"--output={tmp_path / 'run'}", f"--gate={rules}", f"--baseline={baseline}"]
    assert run.main([*pairs, *flags]) == FAILED
    assert "1 failed" in capsys.readouterr().out


@pytest.mark.heavy
@pytest.mark.parametrize(("ended", "code"), [(True, OK), (False, CRASH)])
def test_an_engine_that_is_lost(pairs, tmp_path, monkeypatch, capsys, ended, code):
    """The directory tells if it was lost after the run had ended."""
    run_job = job.run_job

    def run_and_lose(*arguments):
        if ended:
            run_job(*arguments)
        raise job.JobError("error: the run broke off: Connection refused")

    monkeypatch.setattr(job, "run_job", run_and_lose)
    assert run.main([*pairs, f"--output={tmp_path / 'run'}"]) == code
    assert ("is finished" in capsys.readouterr().err) == ended


@pytest.mark.parametrize(
    ("flags", "starts"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (["--runner=NoRunner"], False),
        (["--runner", "NoRunner"], False),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=-1"], False),
        (["--prism_location=no/prism"], False),
    ],
)
def test_children_start_before_beam_is_imported_if_the_work_is_done_here(tmp_path, monkeypatch, flags, starts):
    started = []
    monkeypatch.setattr(Sandbox, "start", lambda sandbox, task: started.append(task))
    missing = f"--input={tmp_path / 'missing.parquet'}"
    assert run.main([missing, f"--output={tmp_path / 'run'}", "--losses=mae", *flags]) == USAGE
    assert started == [DECODE_TASK] * starts


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        run.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("pairloss 0.")
