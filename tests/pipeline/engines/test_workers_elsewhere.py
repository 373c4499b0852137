"""Jobs on other machines: what is wrong is reported at launch where possible, in one line."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from apache_beam.options.pipeline_options import DebugOptions
from support.serving import serving

from pipeline.engines.dataflow import is_dry_run, is_only_built
from pipeline.engines.engine import beam_options, check_engine
from pipeline.errors import UsageError
from pipeline.parse import parse

GS = ["--input=gs://b/*.parquet", "--output=gs://b/run"]
CLOUD = ["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/tmp"]
IMAGE = "--sdk_container_image=example.com/pairloss:1"
GPU = "--accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"


def check(*arguments: str):
    config = parse(arguments)
    options = beam_options(config.beam_flags)
    check_engine(options, config)
    return options


@contextmanager
def flink_rest(answer: bytes) -> Iterator[str]:
    """A server that answers as a JobManager of Flink does, for versions that are not at hand."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/config" else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"localhost:{server.server_port}"


@pytest.fixture
def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input=x", "--output=y"],
        [*GS, *CLOUD, IMAGE],
        [*GS, *CLOUD, "--setup_file=./setup.py", "--preset=edges"],
        [*GS, *CLOUD, "--setup_file=./setup.py", "--weights=gs://b/w.safetensors"],
        [*GS, *CLOUD, IMAGE, GPU, "--min_ram=16GB"],
        [*GS, *CLOUD, IMAGE, "--gate=local.yaml", "--baseline=local.json"],
        ["--input=x", "--output=y", "--runner=PortableRunner", "--job_endpoint=embed"],
        ["--input=x", "--output=y", "--runner=FlinkRunner", "--flink_submit_uber_jar"],
    ],
    ids=" ".join,
)
def test_good(arguments):
    check(*arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*GS, "--runner=DataflowRunner"], ["--project, --region, --temp_location"]),
        ([*GS, "--runner=dataflowrunner", *CLOUD[1:3]], ["--temp_location"]),
        (
            ["--input=/data/*.parquet,gs://b/x", "--output=run", *CLOUD, IMAGE],
            ["--input=/data/*", "--output=run", "gs://"],
        ),
        ([*GS, *CLOUD, IMAGE, "--weights=w.safetensors"], ["--weights=w.safetensors", "gs://"]),
        ([*GS, *CLOUD], ["--sdk_container_image", "deploy/Dockerfile", "--setup_file"]),
        ([*GS, *CLOUD, "--setup_file=./setup.py"], ["weights", "--weights=gs://", "pairloss weights"]),
        ([*GS, *CLOUD, IMAGE, "--losses=style_keras"], ["weights", "--keras_weights=gs://"]),
        ([*GS, *CLOUD, IMAGE, "--template_location=gs://b/t", "--gate=rules.yaml"], ["--gate", "--template_location"]),
        ([*GS, *CLOUD, IMAGE, GPU, "--flexrs_goal=COST_OPTIMIZED"], ["--flexrs_goal", "--accelerator"]),
        (
            [*GS, *CLOUD, IMAGE, "--min_ram=9GB", "--accelerator=type:nvidia-l4;count:1;machine_type:g2-standard-8"],
            ["--min_ram=9GB", "machine_type", "drop one"],
        ),
        ([*GS, *CLOUD, IMAGE, "--min_ram=9GB", "--flexrs_goal=COST_OPTIMIZED"], ["--flexrs_goal", "--min_ram"]),
        (
            [*GS, *CLOUD, IMAGE, GPU, "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"],
            ["--accelerator", "worker_accelerator"],
        ),
        ([*GS, "--min_ram=16GB", "--runner=FlinkRunner"], ["--min_ram", "FlinkRunner"]),
        ([*GS, GPU], ["--accelerator", "FnApiRunner"]),
        ([*GS, "--dry_run=True"], ["--dry_run", "DataflowRunner"]),
        ([*GS, "--runner=PortableRunner"], ["--job_endpoint=HOST:PORT"]),
        ([*GS, "--prism_location=/no/prism"], ["--prism_location=/no/prism", "make prism"]),
        ([*GS, "--runner=FlinkRunner", "--flink_job_server_jar=/no/such.jar"], ["--flink_job_server_jar=/no/such.jar"]),
        (
            [*GS, "--accelerator=nvidia-tesla-t4"],
            ["--accelerator", "'nvidia-tesla-t4'", "type:nvidia-tesla-t4;count:1"],
        ),
        ([*GS, "--min_ram=16"], ["--min_ram", "'16'", "16GB"]),
    ],
    ids=str,
)
def test_wrong(arguments, told):
    with pytest.raises(UsageError) as caught:
        check(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in told if part not in message] == []


def test_one_thread_and_one_process_hold_a_gpu():
    debug = check(*GS, *CLOUD, IMAGE, GPU).view_as(DebugOptions)
    assert debug.number_of_worker_harness_threads == 3
    assert "no_use_multiple_sdk_containers" in debug.experiments
    assert check(*GS, *CLOUD, IMAGE).view_as(DebugOptions).number_of_worker_harness_threads is None
    chosen = check(*GS, *CLOUD, IMAGE, GPU, "--number_of_worker_harness_threads=2").view_as(DebugOptions)
    assert chosen.number_of_worker_harness_threads == 2


@pytest.mark.parametrize(
    ("flags", "dry", "built"),
    [([], False, False), (["--dry_run=True"], True, True), (["--template_location=gs://b/t"], False, True)],
)
def test_jobs_that_nobody_waits_for(flags, dry, built):
    options = check(*GS, *CLOUD, IMAGE, *flags)
    assert (is_dry_run(options), is_only_built(options)) == (dry, built)


class TestFlink:
    FLAGS = ("--input=x", "--output=y", "--runner=FlinkRunner", "--environment_type=LOOPBACK")

    def test_nobody_there(self, closed_port):
        with pytest.raises(UsageError, match=f"no Flink answers at --flink_master=localhost:{closed_port}.*8081"):
            check(*self.FLAGS, f"--flink_master=localhost:{closed_port}")

    @pytest.mark.parametrize("answer", [b"<html>a web server</html>", b'["flink"]', b'{"version": 1}'])
    def test_somebody_else_there(self, answer):
        with flink_rest(answer) as address, pytest.raises(UsageError, match="no Flink answers at"):
            check(*self.FLAGS, f"--flink_master={address}")

    @pytest.mark.parametrize(
        ("version", "flags", "told"),
        [
            ("1.19.3", [], "--flink_version=1.19"),
            ("1.20.0", ["--flink_job_server_jar={jar}"], "is Flink 1.20, the job server is for 1.19"),
            ("1.15.4", ["--flink_submit_uber_jar"], "is Flink 1.15; this Apache Beam knows 1."),
            ("1.19.3", ["--flink_version=1.19", "--environment_type=DOCKER"], "--sdk_container_image=IMAGE"),
            (
                "1.19.3",
                ["--flink_version=1.19", "--environment_type=EXTERNAL", "--environment_config=localhost:{port}"],
                "pipeline.worker_pool --service_port=",
            ),
        ],
    )
    def test_wrong_cluster_or_workers(self, tmp_path, closed_port, version, flags, told):
        jar = tmp_path / "beam-runners-flink-1.19-job-server.jar"
        jar.touch()
        filled = [flag.format(jar=jar, port=closed_port) for flag in flags]
        answer = json.dumps({"flink-version": version}).encode()
        with flink_rest(answer) as address, pytest.raises(UsageError, match=told):
            check(*self.FLAGS, f"--flink_master={address}", *filled)

    @pytest.mark.parametrize("flags", [["--flink_version=1.19"], ["--flink_submit_uber_jar"]])
    def test_right_cluster(self, flags):
        with flink_rest(b'{"flink-version": "1.19.3"}') as address:
            check(*self.FLAGS, f"--flink_master=http://{address}/", *flags)


def test_no_job_server(closed_port):
    with pytest.raises(UsageError, match=f"no job server answers at --job_endpoint=localhost:{closed_port}"):
        check(*GS, "--runner=PortableRunner", f"--job_endpoint=localhost:{closed_port}")
