"""Beam's local engine, with worker processes for `--direct_running_mode=multi_processing --direct_num_workers=N`.

Beam starts such processes and forgets about them: when one dies, the run waits for the others' whole work, or for
ever, and each process starts a thread for every CPU. Here the processes share the threads, and the run ends when one
of them dies.
"""

import logging
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

from pipeline.config import Config
from pipeline.errors import UsageError
from transforms.worker import threads

RUNNER = "FnApiRunner"
_IN_THIS_PROCESS, _PROCESSES = "in_memory", "multi_processing"


class WorkerDiedError(Exception):
    """A worker process ended before the run did."""


def check(options: PipelineOptions, config: Config) -> None:
    """Check the number of workers, and count the CPUs for `--direct_num_workers=0`.

    Raises:
        UsageError: the number is negative, or it is not 1 and the running mode allows only one worker.
    """
    direct = options.view_as(DirectOptions)
    number = direct.direct_num_workers
    if number < 0:
        raise UsageError(f"--direct_num_workers={number} is negative; give 0 for as many as there are CPUs")
    if number != 1 and direct.direct_running_mode == _IN_THIS_PROCESS:
        raise UsageError(f"--direct_num_workers={number} needs --direct_running_mode={_PROCESSES} as well")
    direct.direct_num_workers = number or threads.available_cpus()


def works_here(options: PipelineOptions) -> bool:
    """True if the pairs are scored in this process, and not in worker processes."""
    return not _has_processes(options)


@contextmanager
def watched_workers(options: PipelineOptions) -> Iterator[None]:
    """Run a pipeline in the block. Its worker processes share the CPUs, and all of them end with the block.

    Raises:
        WorkerDiedError: one of them died. In the main thread this interrupts the block wherever it is.
    """
    if not _has_processes(options):
        yield
        return
    pool = _Worker.pool = _Pool(max(1, threads.thread_count() // options.view_as(DirectOptions).direct_num_workers))
    # Python lets only the main thread handle signals.
    watches = threading.current_thread() is threading.main_thread()
    kept_handler = signal.signal(signal.SIGCHLD, pool.find_dead) if watches else None
    kept_hook, threading.excepthook = threading.excepthook, _report_thread
    try:
        yield
    except Exception as error:
        if pool.death:
            # The interrupted code may have turned WorkerDiedError into an error of its own.
            raise WorkerDiedError(pool.death) from error
        raise
    finally:
        if watches:
            signal.signal(signal.SIGCHLD, kept_handler)
        pool.close()
        threading.excepthook = kept_hook


def _has_processes(options: PipelineOptions) -> bool:
    mode: str = options.view_as(DirectOptions).direct_running_mode
    return mode == _PROCESSES


class _Pool:
    """The worker processes of a run.

    Args:
        threads: number of threads that each may use.

    Attributes:
        death: how the first worker died that was not told to end; empty if none has.
    """

    def __init__(self, threads: int):
        self.death = ""
        self._threads = threads
        self._running: set[subprocess.Popen[bytes]] = set()
        self._starter = ThreadPoolExecutor(1, "start_worker")

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a worker."""
        # Ctrl-C interrupts only the main thread; there, a process that is just starting would get lost.
        process = self._starter.submit(self._start, command, environment).result()
        # If it ended before it was registered, its signal was missed.
        self._check()
        return process

    def end(self, process: "subprocess.Popen[bytes]") -> None:
        """End a worker, whatever it is doing."""
        # Forget it first, so that its death is not reported.
        self._running.discard(process)
        process.terminate()
        process.wait()

    def close(self) -> None:
        """End the workers that Beam has not ended: its own clean-up may have been interrupted."""
        self._starter.shutdown()
        for process in self._running.copy():
            self.end(process)

    def find_dead(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGCHLD: raise WorkerDiedError if a worker ended unasked."""
        self._check()

    def _check(self) -> None:
        for process in self._running.copy():
            code = process.poll()
            if code is not None:
                self._running.discard(process)
                self.death = self.death or _describe(code)
                raise WorkerDiedError(self.death)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, threads.VARIABLE: str(self._threads)},
            # A worker prints a traceback of every error that it also reports to the launcher.
            stderr=None if logging.getLogger().isEnabledFor(logging.INFO) else subprocess.DEVNULL,
            # Ctrl-C is for the launcher alone, which then ends its workers.
            process_group=0,
        )
        self._running.add(process)
        return process


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class _Worker(GrpcWorkerHandler):
    """Replaces Beam's own handler, which starts the worker through a shell."""

    pool: _Pool

    def __init__(self, command: bytes, state: Any, provision_info: Any, grpc_server: Any):
        super().__init__(state, provision_info, grpc_server)
        self._command = shlex.split(command.decode())

    def start_worker(self) -> None:
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        self._process = self.pool.start(self._command, environment)

    def stop_worker(self) -> None:
        self.pool.end(self._process)


def _describe(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "a worker process was killed (SIGKILL), as Linux does when memory runs out: try fewer "
            "--direct_num_workers, or a smaller --batch_size or --chunk_pairs"
        )
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"a worker process {ended}; --verbose shows what it printed"


def _report_thread(raised: threading.ExceptHookArgs) -> None:
    # When a worker is gone, the streams to it break, and for each a thread of Beam's reports an error.
    if not issubclass(raised.exc_type, grpc.RpcError):
        threading.__excepthook__(raised)
