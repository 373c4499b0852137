"""What a job on other machines needs, checked on the launcher: a late surprise there costs hours and money."""

import http.client
import json
import os
import re
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner
from apache_beam.utils.subprocess_server import JavaHelper

from pipeline.config import Config
from pipeline.engines.engine import runner_class
from pipeline.errors import UsageError

_SECONDS_TO_CONNECT = 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_engine(options: PipelineOptions, config: Config) -> None:
    """Check that the engine can be reached and that its workers will find what they need.

    Raises:
        UsageError: the engine or a setting for it is missing, or settings contradict each other.
    """
    runner = runner_class(options)
    checks = {
        "DataflowRunner": _check_dataflow,
        "FlinkRunner": _check_flink,
        "PortableRunner": _check_portable,
        "PrismRunner": _check_prism,
    }
    if runner != "DataflowRunner":
        _refuse_flags_of_dataflow(runner, options, config)
    if runner in checks:
        checks[runner](options, config)


def is_dry_run(options: PipelineOptions) -> bool:
    """Whether Dataflow's runner builds the job, and nobody runs it."""
    return bool(options.view_as(TestOptions).dry_run)


def is_only_built(options: PipelineOptions) -> bool:
    """Whether Dataflow's runner builds the job without waiting for it: for a dry run, or for a template's launcher."""
    return is_dry_run(options) or bool(options.view_as(GoogleCloudOptions).template_location)


def is_remote_path(path: str) -> bool:
    """Whether it is a URL such as `gs://bucket/object`, which every machine understands alike."""
    return "://" in path


def _refuse_flags_of_dataflow(runner: str, options: PipelineOptions, config: Config) -> None:
    if config.resource_hints:
        # Other engines would run the hinted step in an environment of its own, and ship every image there.
        raise UsageError(
            f"{_hint_flags(config)} given, but {runner} places no workers: start its workers where the GPUs are"
        )
    if is_only_built(options):
        raise UsageError(f"--dry_run and --template_location are DataflowRunner's; {runner} would really run")


def _hint_flags(config: Config) -> str:
    return ", ".join(f"--{name}" for name in config.resource_hints)


def _check_dataflow(options: PipelineOptions, config: Config) -> None:
    google = options.view_as(GoogleCloudOptions)
    needed = {name: getattr(google, name) for name in ("project", "region", "temp_location")}
    if missing := [f"--{name}" for name, value in needed.items() if not value]:
        # Without them Beam asks gcloud and the metadata server, for minutes.
        raise UsageError(f"--runner=DataflowRunner needs {', '.join(missing)}")
    if local := [f"{flag}={path}" for flag, path in _worker_paths(config) if not is_remote_path(path)]:
        raise UsageError(f"{', '.join(local)}: Dataflow's workers do not see local files; give gs:// paths")
    image = options.view_as(WorkerOptions).sdk_container_image
    if not (image or options.view_as(SetupOptions).setup_file):
        raise UsageError(
            "Dataflow's workers have no pairloss: give --sdk_container_image=IMAGE, made with deploy/Dockerfile, or "
            "--setup_file=./setup.py"
        )
    if "lpips" in config.plan.networks and not (image or config.weights):
        raise UsageError(
            "Dataflow's workers have no weights: give --weights=gs://..., a copy of the file that `python -m "
            "pipeline.weights` names, or an --sdk_container_image that holds them"
        )
    if config.gate and google.template_location:
        raise UsageError("--gate judges a finished run, but with --template_location nobody waits for its end")
    if config.resource_hints and google.flexrs_goal:
        raise UsageError(
            f"--flexrs_goal excludes {_hint_flags(config)}: Dataflow fits no workers to steps with FlexRS; drop one"
        )
    if "accelerator" in config.resource_hints:
        _give_each_process_a_gpu(options)


def _give_each_process_a_gpu(options: PipelineOptions) -> None:
    google, debug = options.view_as(GoogleCloudOptions), options.view_as(DebugOptions)
    service = google.dataflow_service_options or []
    if any(option.startswith("worker_accelerator") for option in service):
        raise UsageError("--accelerator and --dataflow_service_options=worker_accelerator exclude each other; drop one")
    # Several threads, or several processes, would each hold a batch in the memory of the one GPU.
    if debug.number_of_worker_harness_threads is None:
        debug.number_of_worker_harness_threads = 1
    debug.add_experiment("no_use_multiple_sdk_containers")


def _worker_paths(config: Config) -> Iterator[tuple[str, str]]:
    """Flags and paths that workers open."""
    yield from (("--input", pattern) for pattern in config.input)
    yield "--output", config.output
    if config.weights:
        yield "--weights", config.weights
    if "keras" in config.plan.networks:
        yield "--keras_weights", config.keras_weights


def _check_flink(options: PipelineOptions, config: Config) -> None:
    flink = options.view_as(FlinkRunnerOptions)
    if (jar := flink.flink_job_server_jar) and not is_remote_path(jar) and not os.path.exists(jar):
        raise UsageError(f"--flink_job_server_jar={jar}: there is no such file")
    if not shutil.which(JavaHelper.get_java()) and not flink.flink_submit_uber_jar:
        raise UsageError("Beam's Flink job server needs Java: install it, or give --flink_submit_uber_jar")
    if flink.flink_master in MAGIC_HOST_NAMES:
        return
    url = FlinkRunner.add_http_scheme(flink.flink_master)
    cluster = _flink_version_at(url, flink.flink_master)
    if jar:
        named = re.search(r"flink[-_](\d+\.\d+)", os.path.basename(jar))
        expected, remedy = named and named[1], f"give a --flink_job_server_jar made for Flink {cluster}"
    else:
        # The uber jar's maker asks the cluster itself.
        expected = None if flink.flink_submit_uber_jar else flink.flink_version
        remedy = f"give --flink_version={cluster}"
    if cluster not in flink.PUBLISHED_FLINK_VERSIONS:
        known = ", ".join(flink.PUBLISHED_FLINK_VERSIONS)
        raise UsageError(f"--flink_master={flink.flink_master} is Flink {cluster}; this Apache Beam knows {known}")
    if expected and expected != cluster:
        raise UsageError(
            f"--flink_master={flink.flink_master} is Flink {cluster}, the job server is for {expected}: {remedy}"
        )
    _check_workers(options, urlsplit(url).hostname or "")


def _flink_version_at(url: str, given: str) -> str:
    """Major and minor version of the cluster, such as `1.19`."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/config", timeout=_SECONDS_TO_CONNECT) as answer:
            version: str = json.load(answer)["flink-version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(
            f"no Flink answers at --flink_master={given} ({type(error).__name__}: {reason}); give HOST:PORT of the "
            "JobManager's REST interface, by default port 8081, and see that the cluster runs"
        ) from error
    return ".".join(version.split(".")[:2])


def _check_portable(options: PipelineOptions, config: Config) -> None:
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint:
        raise UsageError("--runner=PortableRunner needs --job_endpoint=HOST:PORT, or embed for one in this process")
    if endpoint == "embed":
        return
    _connect(endpoint, f"no job server answers at --job_endpoint={endpoint}")
    _check_workers(options, _host(endpoint))


def _check_workers(options: PipelineOptions, engine_host: str) -> None:
    """Check that workers have the program; and those on this machine, whether they are there."""
    portable = options.view_as(PortableOptions)
    kind = (portable.environment_type or "DOCKER").upper()
    if kind == "DOCKER":
        image = options.view_as(WorkerOptions).sdk_container_image or portable.environment_config
        if not (image or portable.environment_options or options.view_as(SetupOptions).setup_file):
            raise UsageError(
                "the workers would start from Beam's own image, which has no pairloss: give "
                "--sdk_container_image=IMAGE, made with deploy/Dockerfile, or --environment_type=EXTERNAL and "
                "--environment_config=HOST:PORT of a worker pool"
            )
    pool = portable.environment_config or ""
    if kind == "EXTERNAL" and engine_host in _LOOPBACK and _host(pool) in _LOOPBACK:
        port = pool.rpartition(":")[2]
        start = f"python -m pipeline.worker_pool --service_port={port}"
        _connect(pool, f"no worker pool answers at --environment_config={pool}; start one: {start}")


def _connect(address: str, complaint: str) -> None:
    try:
        socket.create_connection((_host(address), int(address.rpartition(":")[2])), _SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"{complaint} ({type(error).__name__}: {error})") from error


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _check_prism(options: PipelineOptions, config: Config) -> None:
    path = options.view_as(PrismRunnerOptions).prism_location
    if path and not is_remote_path(path) and not os.path.exists(path):
        raise UsageError(f"--prism_location={path}: there is no such file; `make prism` builds one")
