"""Check, on the launcher, the workers that another engine starts: their first error may come hours later."""

import socket

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, SetupOptions, WorkerOptions

from pipeline.errors import UsageError

SECONDS_TO_CONNECT = 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_remote_path(path: str) -> bool:
    """True for a URL such as `gs://bucket/object`, which means the same on every machine."""
    return "://" in path


def work_in_launcher(options: PipelineOptions) -> bool:
    """True if the engine's workers are in the launcher's process, so that the job ends with it."""
    return (options.view_as(PortableOptions).environment_type or "").upper() == "LOOPBACK"


def check_workers(options: PipelineOptions, engine_host: str) -> None:
    """Check that the workers have the program, and that a worker pool on this machine is running.

    Raises:
        UsageError: they do not, or it is not.
    """
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
    if kind == "EXTERNAL" and engine_host in _LOOPBACK and host_of(pool) in _LOOPBACK:
        port = pool.rpartition(":")[2]
        start = f"python -m pipeline.worker_pool --service_port={port}"
        check_connection(pool, f"no worker pool answers at --environment_config={pool}; start one: {start}")


def check_connection(address: str, complaint: str) -> None:
    """Connect to `host:port`, and disconnect.

    Raises:
        UsageError: nobody answers; the message begins with the complaint.
    """
    try:
        socket.create_connection((host_of(address), int(address.rpartition(":")[2])), SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"{complaint} ({type(error).__name__}: {error})") from error


def host_of(address: str) -> str:
    """The host of `host:port`."""
    return address.rpartition(":")[0].strip("[]")
