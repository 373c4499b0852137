"""A real Flink session cluster on this machine, without Docker: `python -m deploy.flink.session_cluster`.

It has a JobManager, a TaskManager and Beam's worker pool, on free ports. They end with this process, even if it is
killed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.flink.downloads import FlinkError, find_java, flink_jars, job_server_jar
from deploy.flink.processes import ProcessGroup, Running, children, free_ports, is_listening, wait_until
from pipeline import worker_pool

# A part that ends is noticed at once; one that starts on a busy machine may take minutes.
_START_SECONDS = 300.0
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

# Flink's start scripts compute these sizes, but the scripts are not among its jars. Only references and small summaries
# go through a TaskManager, but every job loads its own copy of Beam's classes, which needs much metaspace.
_TASK_MANAGER_SIZES = {
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.task.off-heap.size": "64m",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.jvm-metaspace.size": "512m",
    "taskmanager.memory.jvm-overhead.min": "64m",
    "taskmanager.memory.jvm-overhead.max": "64m",
}

_TASK_MANAGER_JAVA = ("-Xmx384m", "-XX:MaxDirectMemorySize=1g", "-XX:MaxMetaspaceSize=512m")

# Network buffers per slot: every shuffle of a batch job takes 16 MiB.
_NETWORK_MIB = 96

# Flink and Kryo need access to these packages, which Java closes by default.
_OPENED = (
    *("java.io", "java.lang", "java.lang.reflect", "java.net", "java.nio", "java.text", "java.time", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch"),
)


@dataclass(frozen=True)
class Host:
    """A machine of a cluster.

    Attributes:
        name: of its logs.
        address: under which the others reach it.
        bind: address at which its servers listen.
        enter: the beginning of every command that runs there.
    """

    name: str = ""
    address: str = "localhost"
    bind: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


THIS_MACHINE = Host()


class SessionCluster:
    """A cluster that runs inside the `with` block.

    Attributes:
        master: address of the JobManager, as `--flink_master` takes it.
        worker_pool: address of the worker pool beside each TaskManager, as `--environment_config` takes it.
        logs: directory of the logs of the cluster's processes.
    """

    def __init__(
        self,
        slots: int = 2,
        python: str | Path = sys.executable,
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
        job_host: Host = THIS_MACHINE,
        task_hosts: Sequence[Host] = (THIS_MACHINE,),
    ) -> None:
        """Set up nothing yet.

        Args:
            slots: slots of a TaskManager: the number of chunks that it works on at once.
            python: the interpreter of the workers.
            variables: the workers' environment variables, in addition to those of this process.
            directory: the workers' working directory; None: that of this process.
            job_host: where the JobManager runs.
            task_hosts: where TaskManagers run, each with a worker pool beside it.
        """
        self._slots = slots
        self._python = Path(python)
        self._worker_variables = variables or {}
        self._worker_directory = directory
        self._job_host = job_host
        self._task_hosts = tuple(task_hosts)
        self._task_managers: dict[Host, subprocess.Popen] = {}
        self._pools: dict[Host, subprocess.Popen] = {}

    def __enter__(self) -> "SessionCluster":
        """Start it.

        Raises:
            FlinkError: Java or Maven is missing, a download failed, or a part of the cluster does not start.
        """
        self._java, self._jars, self._job_server = find_java(), flink_jars(), job_server_jar()
        # They are free on every host, because nothing else runs on hosts other than this machine.
        master, rpc, pool = free_ports(3)
        self.master, self.worker_pool = f"{self._job_host.address}:{master}", f"localhost:{pool}"
        with ExitStack() as stack:
            self._scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pairloss-flink-")))
            self._group = stack.enter_context(ProcessGroup())
            self._write_settings(master, rpc)
            self.start_job_manager()
            for host in self._task_hosts:
                self.start_task_manager(host)
                self._start_worker_pool(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def logs(self) -> Path:
        return self._scratch / "logs"

    def flags(self, uber_jar: bool = False, parallelism: int | None = None) -> list[str]:
        """Beam's flags for a run on this cluster.

        Args:
            uber_jar: submit the job as a jar of its own, without a job server.
            parallelism: the number of slots to use; None: all.
        """
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.master}",
            f"--flink_job_server_jar={self._job_server}",
            *(["--flink_submit_uber_jar"] if uber_jar else []),
            "--environment_type=EXTERNAL",
            f"--environment_config={self.worker_pool}",
            f"--parallelism={parallelism or self._slots * len(self._task_hosts)}",
        ]

    def start(self, command: Sequence[str], log: Path | None = None) -> subprocess.Popen:
        """Start a launcher. It ends with the cluster at the latest, as does the job server that it starts."""
        return self._group.start(command, log, self._variables())

    def start_job_manager(self) -> None:
        """Start the JobManager, and wait until it answers."""
        self._job_manager = self._start_java(self._job_host, "jobmanager", _JOB_MANAGER, "-Xmx512m")
        self._wait(lambda: self._slots_known() >= 0, self._job_manager, "jobmanager")

    def kill_job_manager(self) -> None:
        """Kill the JobManager, as the loss of its machine would."""
        self._job_manager.send_signal(signal.SIGKILL)
        self._job_manager.wait()

    def start_task_manager(self, host: Host | None = None) -> None:
        """Start the TaskManager of a host, by default of the first, and wait until the JobManager knows its slots."""
        host = host or self._task_hosts[0]
        name = f"taskmanager{host.name}"
        settings = [f"-Dtaskmanager.host={host.address}", f"-Dtaskmanager.bind-host={host.bind}"]
        started = self._start_java(host, name, _TASK_MANAGER, *_TASK_MANAGER_JAVA, settings=settings)
        self._task_managers[host] = started
        self._wait(lambda: self._slots_known() >= self._slots * len(self._task_managers), started, name)

    def kill_task_manager(self) -> None:
        """Kill the TaskManager of the first host, as the loss of its machine would."""
        lost = self._task_managers.pop(self._task_hosts[0])
        lost.send_signal(signal.SIGKILL)
        lost.wait()
        self._wait(lambda: 0 <= self._slots_known() <= self._slots * len(self._task_managers), None, "jobmanager")

    def _start_worker_pool(self, host: Host) -> None:
        """Start Beam's worker pool, which starts a worker process for each job when the TaskManager asks for one."""
        port = self.worker_pool.rpartition(":")[2]
        # It is run by its path, because this package need not be in the workers' directory.
        command = [*host.enter, str(self._python), worker_pool.__file__, f"--service_port={port}"]
        # The pool starts the workers with the first `python` on the path.
        path = os.pathsep.join([str(self._python.parent), os.environ.get("PATH", os.defpath)])
        variables = {**self._variables(), "PATH": path, **self._worker_variables}
        name = f"workers{host.name}"
        pool = self._group.start(command, self._log(name), variables, self._worker_directory)
        self._pools[host] = pool
        self._wait(lambda: is_listening(f"{host.address}:{port}"), pool, name)

    def ask(self, path: str) -> dict[str, Any]:
        """The JobManager's answer to a GET request of its REST interface.

        Raises:
            OSError: it cannot be reached, or answers with an error.
        """
        with urllib.request.urlopen(f"http://{self.master}{path}", timeout=10) as answer:
            content: dict[str, Any] = json.load(answer)
        return content

    def workers(self) -> list[Running]:
        """Return the worker processes, which do the scoring."""
        return [worker for pool in self._pools.values() for worker in children(pool.pid)]

    def _variables(self) -> dict[str, str]:
        # A killed process cannot delete its temporary files, so they go to a directory of ours. Beam runs the first
        # `java` on the path.
        path = os.pathsep.join([str(self._java.parent), os.environ.get("PATH", os.defpath)])
        return {**os.environ, "TMPDIR": str(self._temporary), "PATH": path}

    @property
    def _temporary(self) -> Path:
        return self._scratch / "temporary"

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _write_settings(self, master: int, rpc: int) -> None:
        self.logs.mkdir()
        self._temporary.mkdir()
        network = _NETWORK_MIB * self._slots
        settings = {
            "jobmanager.rpc.address": self._job_host.address,
            "jobmanager.rpc.port": rpc,
            "jobmanager.bind-host": self._job_host.bind,
            "jobmanager.memory.process.size": "1g",
            "rest.address": self._job_host.address,
            "rest.port": master,
            "rest.bind-address": self._job_host.bind,
            "taskmanager.numberOfTaskSlots": self._slots,
            "io.tmp.dirs": str(self._temporary),
            # Notice a lost TaskManager within half a minute, and start its tasks again. A busy machine may hold one up
            # for ten seconds.
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 30000,
            "cluster.evenly-spread-out-slots": True,
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 3,
            "restart-strategy.fixed-delay.delay": "1 s",
            **_TASK_MANAGER_SIZES,
            "taskmanager.memory.network.min": f"{network}m",
            "taskmanager.memory.network.max": f"{network}m",
        }
        # JSON is valid YAML.
        (self._scratch / "config.yaml").write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def _start_java(
        self, host: Host, name: str, main: str, *options: str, settings: Sequence[str] = ()
    ) -> subprocess.Popen:
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        logging = "-Dorg.apache.logging.log4j.level=INFO"
        temporary = f"-Djava.io.tmpdir={self._temporary}"
        command = [*host.enter, str(self._java), *options, *opened, logging, temporary, "-cp", f"{self._jars}/*", main]
        command += ["--configDir", str(self._scratch), *settings]
        return self._group.start(command, self._log(name), self._variables())

    def _slots_known(self) -> int:
        """The number of slots that the JobManager knows; -1 if it does not answer yet, or answers that it starts."""
        try:
            slots: int = self.ask("/overview")["slots-total"]
        except OSError:
            return -1
        return slots

    def _wait(self, condition: Callable[[], bool], process: subprocess.Popen | None, name: str) -> None:
        def ended() -> bool:
            return process is not None and process.poll() is not None

        if not wait_until(lambda: ended() or condition(), _START_SECONDS) or ended():
            told = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
            raise FlinkError(f"the cluster does not start; {name}.log ends with: {' | '.join(told[-3:])}")


def main() -> int:
    """Run a cluster until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.flink.session_cluster",
        description="Run a Flink session cluster with a Beam worker pool on this machine until Ctrl-C.",
    )
    parser.add_argument(
        "--slots", type=int, default=2, help="number of chunks to work on at once (default: %(default)s)"
    )
    arguments = parser.parse_args()
    # Treat SIGTERM as Ctrl-C, so that no files are left either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with SessionCluster(arguments.slots) as cluster:
            flags = " \\\n  ".join(cluster.flags())
            print(f"Flink is up at http://{cluster.master}. Flags of a run on it:\n\n  {flags}\n")
            print(f"The logs are in {cluster.logs}. Ctrl-C stops all of it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except FlinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
