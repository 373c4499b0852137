"""The table of engines: which one runs a job, where its jobs go on, and one more row; and Beam's own flags."""

from contextlib import contextmanager
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, SetupOptions, StandardOptions, WorkerOptions
from support import shards
from support.pictures import encode, smooth

from pipeline.engines.engine import ENGINES, Engine, beam_options, engine_of
from pipeline.errors import UsageError
from pipeline.run import OK, USAGE, main

DATAFLOW = ("--runner=DataflowRunner", "--project=p", "--region=europe-west4")
FLINK = ("--runner=FlinkRunner", "--flink_master=host:8081")


@pytest.mark.parametrize(
    ("flags", "runner"),
    [
        ([], "FnApiRunner"),
        (["--runner=DirectRunner"], "FnApiRunner"),
        (["--runner", "DirectRunner"], "FnApiRunner"),
        (["--runner=directrunner"], "FnApiRunner"),
        (["--runner=direct"], "FnApiRunner"),
        (["--runner=FnApiRunner"], "FnApiRunner"),
        (["--prism_location=/opt/prism"], "PrismRunner"),
        (["--runner=DirectRunner", "--prism_location=/opt/prism"], "PrismRunner"),
        (["--runner=PrismRunner"], "PrismRunner"),
        (["--runner=FlinkRunner", "--flink_master=host:8081"], "FlinkRunner"),
        (["--runner=PortableRunner", "--job_endpoint=embed"], "PortableRunner"),
        (["--runner=DataflowRunner", "--project=p"], "DataflowRunner"),
        (
            ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"],
            "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
        ),
    ],
    ids=str,
)
def test_runner(flags, runner):
    assert beam_options(flags).view_as(StandardOptions).runner == runner


def test_the_other_flags_arrive():
    options = beam_options(["--project=p", "--num_workers", "3", "--streaming"])
    assert options.view_as(GoogleCloudOptions).project == "p"
    assert options.view_as(WorkerOptions).num_workers == 3
    assert options.view_as(StandardOptions).streaming is True


@pytest.mark.parametrize(("flags", "saved"), [([], False), (["--save_main_session"], True)])
def test_the_main_session_stays_here(flags, saved):
    assert beam_options(flags).view_as(SetupOptions).save_main_session is saved


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--nonsense"], ["--nonsense", "--help", "Apache Beam"]),
        (["--nonsense=1", "--runner=DirectRunner"], ["--nonsense"]),
        (["--nonsense", "value"], ["--nonsense"]),
        (["--chunk_pair=3", "--outputs=x"], ["--chunk_pair", "--outputs"]),
        (["--num_worker=3"], ["--num_worker"]),
        (["--runner=NopeRunner"], ["--runner=NopeRunner", "Valid values", "FlinkRunner", "DataflowRunner"]),
        (["--runner=some.module.Runner"], ["--runner=some.module.Runner", "some"]),
        (["--num_workers=many"], ["--num_workers", "'many'"]),
        (["--type_check_strictness=no"], ["--type_check_strictness", "'no'", "ALL_REQUIRED"]),
        (["--flink_master"], ["--flink_master", "expected one argument"]),
    ],
    ids=str,
)
def test_wrong(flags, told, capfd):
    with pytest.raises(UsageError) as caught:
        beam_options(flags)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in told if part not in message] == []
    # The message is all there is to say: not Beam's hundred flags besides.
    assert "usage:" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("chunk_pair", "chunk_pairs"), ("num_worker", "num_workers"), ("flink_maser", "flink_master")],
)
def test_a_misspelt_flag(flag, meant):
    with pytest.raises(UsageError, match=f"no such flag: --{flag} Did you mean '--{meant}'"):
        beam_options([f"--{flag}=3"])


def submitted() -> SimpleNamespace:
    """Stands in for Dataflow's result; a real one needs an account."""
    return SimpleNamespace(job_id=lambda: "2026-id")


def where_is(flags) -> str:
    options = beam_options(flags)
    return engine_of(options).where(options, submitted())


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (DATAFLOW, "https://console.cloud.google.com/dataflow/jobs/europe-west4/2026-id?project=p"),
        (FLINK, "Flink at host:8081"),
        ((*FLINK, "--environment_type=LOOPBACK"), ""),
        (("--runner=FlinkRunner",), ""),
        (("--runner=PortableRunner", "--job_endpoint=host:8099"), "the job server at host:8099"),
        (("--runner=PortableRunner", "--job_endpoint=embed"), ""),
        (("--runner=PrismRunner",), ""),
        (("--runner=DirectRunner",), ""),
    ],
    ids=str,
)
def test_where(flags, where):
    assert where_is(flags) == where


@pytest.mark.parametrize("flag", ["--dry_run=True", "--template_location=gs://b/template"])
def test_a_job_that_is_only_built_is_nowhere(flag):
    assert where_is([*DATAFLOW, flag]) == ""


class TestOneMoreEngine:
    """A new engine is one row, and its functions: nothing else knows the names of runners."""

    RUNNER = "--runner=support.stub_runner.StubRunner"

    @pytest.fixture
    def pairs(self, tmp_path):
        path = tmp_path / "pairs.parquet"
        image = encode(smooth(16, 16, 0))
        shards.write_parquet(path, pa.Table.from_pylist([{"generated": image, "target": image}] * 3))
        return [f"--input={path}", f"--output={tmp_path / 'run'}", "--losses=mae", self.RUNNER]

    @pytest.fixture
    def told(self, monkeypatch):
        told = []

        def check(options, config):
            told.append(config.output)
            if config.chunk_pairs == 1:
                raise UsageError("the stub does not take --chunk_pairs=1")

        @contextmanager
        def watch(options):
            told.append("begins")
            yield
            told.append("ends")

        row = Engine(check, where=lambda options, result: f"the stub, {result.state}", watch=watch)
        monkeypatch.setitem(ENGINES, "StubRunner", row)
        return told

    def test_from_end_to_end(self, pairs, told, tmp_path, capsys):
        assert main(pairs) == OK
        assert told == [str(tmp_path / "run"), "begins", "ends"]
        assert "submitted: the stub, DONE" in capsys.readouterr().err
        assert len(pq.read_table(tmp_path / "run" / "metrics")) == 3

    def test_its_check_counts(self, pairs, told, tmp_path, capsys):
        assert main([*pairs, "--chunk_pairs=1"]) == USAGE
        assert capsys.readouterr().err == "error: the stub does not take --chunk_pairs=1\n"
        assert not (tmp_path / "run").exists()

    def test_it_places_no_workers(self, pairs, told, capsys):
        assert main([*pairs, "--min_ram=16GB"]) == USAGE
        assert "--min_ram given, but StubRunner places no workers" in capsys.readouterr().err

    def test_without_a_row(self, pairs, tmp_path):
        assert main(pairs) == OK
        assert len(pq.read_table(tmp_path / "run" / "metrics")) == 3
