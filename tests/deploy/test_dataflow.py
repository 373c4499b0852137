"""Jobs made by the launcher of Dataflow's Flex Templates, up to the JSON that Google receives."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from support import gcs_server
from support.audit_runs import pair

from pipeline.errors import OK
from pipeline.run import main

pytestmark = pytest.mark.heavy

REPOSITORY = Path(__file__).parents[2]
DATAFLOW = REPOSITORY / "deploy" / "dataflow"
SECRET = "s3cr3t-in-the-environment"
ACCELERATOR = "type:nvidia-l4;count:1;install-nvidia-driver:5xx"
IMAGE = "europe-docker.pkg.dev/project/pairloss/pairloss:1"
# The flags that Dataflow's launcher of Flex Templates adds to the template's parameters.
LAUNCHER = [
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=us-central1",
    "--job_name=nightly",
    "--temp_location=gs://bucket/temp",
    "--staging_location=gs://bucket/staging",
    '--labels={"goog-dataflow-provided-template-type": "flex"}',
]
INPUT, OUTPUT = "--input=gs://bucket/pairs/*.parquet", "--output=gs://bucket/run"


@dataclass
class Launch:
    """A finished launch.

    Attributes:
        code: the exit code.
        said: its standard error.
        objects: the objects that it added to the bucket.
    """

    code: int
    said: str
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def job(self) -> dict[str, Any]:
        """The request for the job as Google receives it."""
        job: dict[str, Any] = json.loads(self.objects["template/job_object"])
        return job

    @property
    def pipeline(self) -> beam_runner_api_pb2.Pipeline:
        """The graph, which Google receives as a file."""
        return beam_runner_api_pb2.Pipeline.FromString(self.staged("pipeline.pb"))

    def staged(self, name: str) -> bytes:
        """A file that the workers receive."""
        (found,) = (content for path, content in self.objects.items() if re.fullmatch(f"staging/[^/]+/{name}", path))
        return found


@pytest.fixture(scope="module")
def gcs(tmp_path_factory) -> Iterator[gcs_server.GcsServer]:
    with gcs_server.serve_this_process(tmp_path_factory.mktemp("gcs")) as server:
        server.anonymous = True
        server.create_bucket("bucket")
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([pair(number) for number in range(3)]), buffer)
        bucket(server).blob("pairs/a.parquet").upload_from_string(buffer.getvalue())
        yield server


def bucket(server: gcs_server.GcsServer) -> Any:
    client = Client(project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url})
    return client.bucket("bucket")


def launch(server: gcs_server.GcsServer, *flags: str) -> Launch:
    """Start the program as the launcher of Flex Templates does, but unable to reach other machines."""
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(REPOSITORY), "AUDIT_WEBHOOK_URL": SECRET}
    command = [sys.executable, str(DATAFLOW / "template.py"), *LAUNCHER, *flags]
    with added_objects(server) as added:
        ended = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return Launch(ended.returncode, ended.stderr, added)


@contextmanager
def added_objects(server: gcs_server.GcsServer) -> Iterator[dict[str, bytes]]:
    """Filled at the end of the block with the objects that it added to the bucket."""
    before = {blob.name for blob in bucket(server).list_blobs()}
    added: dict[str, bytes] = {}
    yield added
    blobs = [blob for blob in bucket(server).list_blobs() if blob.name not in before]
    added |= {blob.name: blob.download_as_bytes() for blob in blobs}


class TestGpuJob:
    """A job launched from the template, on GPU workers in a private network."""

    @pytest.fixture(scope="class")
    def launched(self, gcs):
        launched = launch(
            gcs,
            INPUT,
            OUTPUT,
            "--losses=mae,ssim",
            f"--accelerator={ACCELERATOR}",
            "--min_ram=16GB",
            "--template_location=gs://bucket/template/job_object",
            f"--sdk_container_image={IMAGE}",
            "--machine_type=n2-standard-4",
            "--max_num_workers=7",
            "--worker_zone=us-central1-b",
            "--subnetwork=regions/us-central1/subnetworks/inner",
            "--service_account_email=workers@my-project.iam.gserviceaccount.com",
        )
        assert launched.code == 0, launched.said
        return launched

    def test_workers(self, launched):
        environment = launched.job["environment"]
        (pool,) = environment["workerPools"]
        assert pool["machineType"] == "n2-standard-4"
        assert pool["autoscalingSettings"]["maxNumWorkers"] == 7
        assert pool["subnetwork"] == "regions/us-central1/subnetworks/inner"
        assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
        assert environment["workerZone"] == "us-central1-b"
        assert environment["serviceAccountEmail"] == "workers@my-project.iam.gserviceaccount.com"

    def test_one_batch_at_a_time_on_a_gpu(self, launched):
        environment = launched.job["environment"]
        assert environment["workerPools"][0]["numThreadsPerWorker"] == 3
        assert "no_use_multiple_sdk_containers" in environment["experiments"]
        assert "use_multiple_sdk_containers" not in environment["experiments"]

    def test_only_the_scoring_step_has_hints(self, launched):
        components = launched.pipeline.components
        hints = {name: dict(environment.resource_hints) for name, environment in components.environments.items()}
        wanted = {
            "beam:resources:accelerator:v1": ACCELERATOR.encode(),
            "beam:resources:min_ram_bytes:v1": b"16000000000",
        }
        steps = {
            step.unique_name: hints[step.environment_id]
            for step in components.transforms.values()
            if step.environment_id
        }
        hinted = {name for name, found in steps.items() if found}
        assert hinted == {name for name in steps if name.split("/")[0] == "ScorePairs"}
        assert "ScorePairs/Score" in hinted
        assert all(steps[name] == wanted for name in hinted)

    def test_the_image_has_what_the_workers_need(self, launched):
        names = {path.rsplit("/", 1)[1] for path in launched.objects if path.startswith("staging/")}
        assert not names - {"pipeline.pb", "submission_environment_dependencies.txt"}

    def test_the_run_is_claimed_for_the_job(self, launched):
        assert json.loads(launched.objects["run/run.json"])["status"] == "running"
        assert "run/summary.json" not in launched.objects

    def test_nothing_secret_leaves_the_launcher(self, launched, gcs):
        key = json.loads(gcs.key.read_text())["private_key"].splitlines()[1]
        for name, content in launched.objects.items():
            found = [secret for secret in (SECRET, key) if secret.encode() in content]
            assert not found, name

    def test_the_same_request_is_accepted_again_with_other_workers(self, gcs, launched):
        flags = [
            *LAUNCHER,
            INPUT,
            OUTPUT,
            "--losses=mae,ssim",
            "--job_name=again",
            "--template_location=gs://bucket/template/again",
            f"--sdk_container_image={IMAGE}",
            "--flexrs_goal=COST_OPTIMIZED",
        ]
        with added_objects(gcs) as added:
            # Another request would be refused, because the directory holds an unfinished run.
            assert main(flags) == OK
        job = json.loads(added["template/again"])
        assert job["environment"]["flexResourceSchedulingGoal"] == "FLEXRS_COST_OPTIMIZED"


class TestSetupPackaging:
    def test_the_workers_get_the_whole_package(self, gcs, tmp_path):
        # A copy, because setuptools writes files beside setup.py.
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy(REPOSITORY / name, tmp_path)
        for package in ("pairloss", "pipeline", "transforms"):
            shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
        launched = launch(
            gcs,
            INPUT,
            "--output=gs://bucket/packaged",
            "--losses=mae",
            "--template_location=gs://bucket/template/job_object_packaged",
            f"--setup_file={tmp_path}/setup.py",
        )
        assert launched.code == 0, launched.said
        # Beam's workers look for this name.
        with tarfile.open(fileobj=io.BytesIO(launched.staged("workflow.tar.gz"))) as tar:
            packed = {name.partition("/")[2] for name in tar.getnames()}
        whole = {
            str(path.relative_to(tmp_path))
            for package in ("pairloss", "pipeline", "transforms")
            for path in (tmp_path / package).rglob("*")
            if path.is_file()
        }
        assert len(whole) > 50
        assert not whole - packed


def test_a_dry_run_leaves_no_trace(gcs):
    flags = [INPUT, "--output=gs://bucket/dry", "--losses=mae", "--dry_run=True", f"--sdk_container_image={IMAGE}"]
    with added_objects(gcs) as added:
        assert main([*LAUNCHER, *flags]) == OK
    assert added == {}
