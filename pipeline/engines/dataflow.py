"""Google Cloud Dataflow."""

from collections.abc import Iterator

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineResult

from pipeline.config import Config
from pipeline.engines.workers_elsewhere import is_remote_path
from pipeline.errors import UsageError
from transforms.losses.networks.specs import NETWORKS


def check(options: PipelineOptions, config: Config) -> None:
    """Check that Dataflow gets all that it needs, and give each of its processes a GPU if they have one.

    Raises:
        UsageError: a setting is missing, or settings contradict each other.
    """
    google = options.view_as(GoogleCloudOptions)
    needed = {name: getattr(google, name) for name in ("project", "region", "temp_location")}
    if missing := [f"--{name}" for name, value in needed.items() if not value]:
        # Without them, Beam asks gcloud and the metadata server, which takes minutes.
        raise UsageError(f"--runner=DataflowRunner needs {', '.join(missing)}")
    if local := [f"{flag}={path}" for flag, path in _worker_paths(config) if not is_remote_path(path)]:
        raise UsageError(f"{', '.join(local)}: Dataflow's workers do not see local files; give gs:// or s3:// paths")
    image = options.view_as(WorkerOptions).sdk_container_image
    if not (image or options.view_as(SetupOptions).setup_file):
        raise UsageError(
            "Dataflow's workers have no pairloss: give --sdk_container_image=IMAGE, made with deploy/Dockerfile, or "
            "--setup_file=./setup.py"
        )
    for name in config.plan.networks:
        network = NETWORKS[name]
        if not (name in config.weights or (image and network.sha256)):
            # The image holds the files that `pairloss weights` fetches: the pinned ones.
            copy = "the file that `pairloss weights` prints" if network.sha256 else "the file"
            image_too = ", or an --sdk_container_image that holds them" if network.sha256 else ""
            raise UsageError(
                f"Dataflow's workers have no weights: give --{network.flag}=gs://..., a copy of {copy}{image_too}"
            )
    if config.gate and google.template_location:
        raise UsageError(
            "--gate judges a finished run, but with --template_location nobody waits for its end; drop --gate, and "
            "judge the run with `pairloss audit gate`"
        )
    if config.resource_hints and google.flexrs_goal:
        hints = ", ".join(f"--{name}" for name in config.resource_hints)
        raise UsageError(f"--flexrs_goal excludes {hints}: with FlexRS, Dataflow fits no workers to steps; drop one")
    if config.min_ram and "machine_type:" in config.accelerator:
        raise UsageError(
            f"--min_ram={config.min_ram} and the machine_type of --accelerator={config.accelerator} both decide how "
            "much memory a worker has; drop one"
        )
    if "accelerator" in config.resource_hints:
        _give_each_process_a_gpu(options)


def where(options: PipelineOptions, result: PipelineResult) -> str:
    """The page of the submitted job; empty if it was only built."""
    if is_only_built(options):
        return ""
    google = options.view_as(GoogleCloudOptions)
    page = f"dataflow/jobs/{google.region}/{result.job_id()}?project={google.project}"
    return f"https://console.cloud.google.com/{page}"


def is_dry_run(options: PipelineOptions) -> bool:
    """True if the job is only built, and never run."""
    return bool(options.view_as(TestOptions).dry_run)


def is_only_built(options: PipelineOptions) -> bool:
    """True if the launcher does not wait for the job: a dry run, or the launcher of a template."""
    return is_dry_run(options) or bool(options.view_as(GoogleCloudOptions).template_location)


def _give_each_process_a_gpu(options: PipelineOptions) -> None:
    google, debug = options.view_as(GoogleCloudOptions), options.view_as(DebugOptions)
    service = google.dataflow_service_options or []
    if any(option.startswith("worker_accelerator") for option in service):
        raise UsageError("--accelerator and --dataflow_service_options=worker_accelerator exclude each other; drop one")
    # Each of several processes would hold a batch in the memory of the one GPU. Threads take turns at it, see
    # `Device.turn`: while one computes, the others read, decode and write.
    if debug.number_of_worker_harness_threads is None:
        debug.number_of_worker_harness_threads = 3
    debug.add_experiment("no_use_multiple_sdk_containers")


def _worker_paths(config: Config) -> Iterator[tuple[str, str]]:
    """Flags with paths that workers open."""
    for flag in ("input", "generated", "target", "mask"):
        yield from ((f"--{flag}", pattern) for pattern in getattr(config, flag))
    yield "--output", config.output
    optional = {"--image_root": config.fields.image_root, "--reuse": config.reuse}
    yield from ((flag, path) for flag, path in optional.items() if path)
    yield from ((f"--{NETWORKS[name].flag}", path) for name, path in config.weights.items())
