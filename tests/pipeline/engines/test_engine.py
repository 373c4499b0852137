"""Beam's options: the engine that is meant, and a plain word about what Beam does not know."""

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, SetupOptions, StandardOptions, WorkerOptions

from pipeline.engines.engine import beam_options
from pipeline.errors import UsageError


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
