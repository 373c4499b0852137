"""Ctrl-C on the launcher: what it means for the run."""

import signal

import pyarrow as pa
import pytest
from support import shards
from support.pictures import encode, smooth

from pipeline.launch import job as module
from pipeline.launch.job import interruption
from pipeline.run import CRASH, main


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "pairs.parquet"
    image = encode(smooth(16, 16, 0))
    shards.write_parquet(path, pa.Table.from_pylist([{"generated": image, "target": image}]))
    return path


def test_interruption():
    assert interruption("", "runs/a") == "interrupted; the same command resumes runs/a"
    assert "the job goes on: Flink at host:8081" in interruption("Flink at host:8081", "runs/a")


@pytest.mark.parametrize("keeps_type", [True, False], ids=["as Python raises it", "as Beam's worker reports it"])
@pytest.mark.parametrize(
    ("number", "on_ctrl_c"),
    [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.default_int_handler),
        # As a shell starts programs in the background.
        (signal.SIGTERM, signal.SIG_IGN),
    ],
)
def test_an_interruption_is_not_an_error_of_beam(number, on_ctrl_c, keeps_type, parquet, tmp_path, monkeypatch, capsys):
    def build(*_, **__):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as interrupt:
            if keeps_type:
                raise
            raise RuntimeError("Traceback ... KeyboardInterrupt [while running 'ScorePairs']") from interrupt

    previous = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        monkeypatch.setattr(module.graph, "build", build)
        run = tmp_path / "run"
        assert main([f"--input={parquet}", f"--output={run}", "--losses=mae", "--quiet"]) == CRASH
        assert capsys.readouterr().err == f"interrupted; the same command resumes {run}\n"
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (on_ctrl_c, signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGINT, previous)
