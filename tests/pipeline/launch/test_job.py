"""Jobs on other machines: where they are, and what Ctrl-C on the launcher means for them."""

from types import SimpleNamespace

import pytest

from pipeline.engines.engine import beam_options
from pipeline.launch.job import interruption, job_elsewhere

DATAFLOW = ("--runner=DataflowRunner", "--project=p", "--region=europe-west4")
FLINK = ("--runner=FlinkRunner", "--flink_master=host:8081")


def submitted() -> SimpleNamespace:
    """What is asked of Dataflow's result; a real one needs an account."""
    return SimpleNamespace(job_id=lambda: "2026-id")


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
    assert job_elsewhere(beam_options(flags), submitted()) == where


@pytest.mark.parametrize("flag", ["--dry_run=True", "--template_location=gs://b/template"])
def test_a_job_that_is_only_built_is_nowhere(flag):
    assert job_elsewhere(beam_options([*DATAFLOW, flag]), submitted()) == ""


def test_interruption():
    assert interruption("", "runs/a") == "interrupted; the same command resumes runs/a"
    assert "the job goes on: Flink at host:8081" in interruption("Flink at host:8081", "runs/a")
