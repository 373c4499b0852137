"""Flink on hosts with addresses of their own, on one Linux machine: `python -m deploy.flink.hosts`. Needs root.

A host is a network namespace: a JobManager runs on one, TaskManagers with their worker pools on two others, and a store
that speaks S3 on a fourth. They share the machine's disk and cores, but whatever passes between them crosses links that
can be cut and slowed. Namespaces and links vanish with the processes, even if this one is killed.

The command copies the input files to the store, and scores them there as `deploy.flink.compare` does.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.flink.compare import compare
from deploy.flink.downloads import FlinkError, missing_tools
from deploy.flink.processes import ProcessGroup, is_listening, wait_until
from deploy.flink.session_cluster import Host, SessionCluster
from transforms.reading.input_files import match_files
from transforms.storage.run_files import create_file

_TASK_MANAGERS = 2
_STORE_PORT = 5000
_BUCKET = "s3://pairloss"
_START_SECONDS = 60.0


class Network:
    """Hosts that a switch, a bridge in a namespace of its own, joins to each other and to this machine."""

    def __init__(self, group: ProcessGroup) -> None:
        """Make the switch, and this machine's link to it.

        Args:
            group: of the processes that hold the namespaces; these vanish when the group ends.

        Raises:
            FlinkError: the kernel refused.
        """
        self._group = group
        # Addresses that RFC 2544 sets aside for tests of networks; two networks at once rarely share one.
        self._addresses = f"198.18.{os.getpid() % 256}"
        self._hosts = 0
        self._switch = self._namespace()
        here = f"pairloss{os.getpid()}"[-15:]
        _do((), f"ip link add {here} type veth peer name here netns {self._switch}")
        _do((), f"ip address add {self._next_address()}/24 dev {here}", f"ip link set {here} up")
        _do(
            _entering(self._switch),
            "ip link add switch type bridge",
            "ip link set switch up",
            "ip link set here master switch up",
        )

    def host(self, name: str) -> Host:
        """Add a host. Its name, of at most 15 characters, is also that of its link's end at the switch."""
        namespace, address = self._namespace(), self._next_address()
        _do(_entering(self._switch), f"ip link add {name} type veth peer name eth0 netns {namespace}")
        _do(_entering(self._switch), f"ip link set {name} master switch up")
        _do(
            _entering(namespace),
            "ip link set lo up",
            f"ip address add {address}/24 dev eth0",
            "ip link set eth0 up",
        )
        return Host(f"-{name}", address, "0.0.0.0", _entering(namespace))

    def cut(self, host: Host) -> None:
        """Cut the host off; its processes go on."""
        _do(_entering(self._switch), f"ip link set {host.name[1:]} down")

    def mend(self, host: Host) -> None:
        """Undo `cut`."""
        _do(_entering(self._switch), f"ip link set {host.name[1:]} up")

    def slow(self, host: Host, kbit: int) -> None:
        """Limit what the host sends and what it receives, in kbit/s each."""
        queue = f"root tbf rate {kbit}kbit burst 16kb latency 1s"
        _do(_entering(self._switch), f"tc qdisc add dev {host.name[1:]} {queue}")
        _do(host.enter, f"tc qdisc add dev eth0 {queue}")

    def unslow(self, host: Host) -> None:
        """Undo `slow`."""
        _do(_entering(self._switch), f"tc qdisc delete dev {host.name[1:]} root")
        _do(host.enter, "tc qdisc delete dev eth0 root")

    def _namespace(self) -> int:
        """The id of a process that holds a new namespace."""
        holder = self._group.start(["unshare", "--net", "sleep", "infinity"])
        ours = os.readlink("/proc/self/ns/net")
        if not wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != ours, _START_SECONDS):
            raise FlinkError("unshare makes no network namespace; run `unshare --net true` to see why")
        return holder.pid

    def _next_address(self) -> str:
        self._hosts += 1
        return f"{self._addresses}.{self._hosts}"


@dataclass(frozen=True)
class Hosts:
    """A running cluster on hosts of its own.

    Attributes:
        cluster: the cluster, with two TaskManagers.
        network: its network.
        job_host: the JobManager's host.
        task_hosts: the TaskManagers' hosts.
        store: the store's host.
        bucket: `s3://` path of a bucket of the store.
    """

    cluster: SessionCluster
    network: Network
    job_host: Host
    task_hosts: tuple[Host, ...]
    store: Host
    bucket: str


@contextmanager
def hosts(slots: int = 1) -> Iterator[Hosts]:
    """Run a store and a cluster on hosts of their own; this process and those that it starts use the store.

    Args:
        slots: of each TaskManager.

    Raises:
        FlinkError: this machine lacks something, or a part does not start.
    """
    if lacking := missing_for_hosts():
        raise FlinkError(lacking)
    with ProcessGroup() as group:
        network = Network(group)
        store, job_host = network.host("store"), network.host("job")
        task_hosts = tuple(network.host(f"task{number}") for number in range(_TASK_MANAGERS))
        address = f"{store.address}:{_STORE_PORT}"
        moto = [sys.executable, "-m", "moto.server", "--host", store.bind, "--port", str(_STORE_PORT)]
        server = group.start([*store.enter, *moto], Path(os.devnull))
        if not wait_until(lambda: is_listening(address) or server.poll() is not None, _START_SECONDS) or server.poll():
            raise FlinkError(f"the store does not start; run `{' '.join(moto)}` to see why")
        with _variables(_access(address)):
            _make_bucket()
            with SessionCluster(slots, job_host=job_host, task_hosts=task_hosts) as cluster:
                yield Hosts(cluster, network, job_host, task_hosts, store, _BUCKET)


def missing_for_network() -> str:
    """Say what this machine lacks for a `Network`; empty: nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are network namespaces, which only root can make, on Linux; run it as root"
    tools = [tool for tool in ("ip", "tc", "unshare", "nsenter") if not shutil.which(tool)]
    return f"found no {', '.join(tools)}; install iproute2 and util-linux" if tools else ""


def missing_for_hosts() -> str:
    """Say what this machine lacks for `hosts`; empty: nothing."""
    return missing_for_network() or missing_tools()


def main(argv: Sequence[str]) -> int:
    """Copy the input files to the store, run all three, and print the outcome."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.flink.hosts",
        description="Score pairs with DirectRunner and on Flink on several hosts; compare the tables.",
        epilog="Other flags go to pairloss run unchanged.",
        allow_abbrev=False,
    )
    parser.add_argument("--input", required=True, metavar="PATTERN", help="local files with pairs")
    given, flags = parser.parse_known_args(argv)

    @contextmanager
    def started() -> Iterator[SessionCluster]:
        with hosts() as running:
            for file in match_files([given.input]):
                create_file(f"{running.bucket}/pairs/{file.label}", Path(file.path).read_bytes())
            yield running.cluster

    return compare(started(), [f"--input={_BUCKET}/pairs/*", *flags], f"{_BUCKET}/runs")


def _entering(namespace: int) -> tuple[str, ...]:
    return "nsenter", f"--net=/proc/{namespace}/ns/net", "--"


def _do(enter: Sequence[str], *commands: str) -> None:
    for command in commands:
        done = subprocess.run([*enter, *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise FlinkError(f"`{command}` failed: {' '.join(done.stderr.split())}")


def _access(address: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": f"http://{address}", "AWS_EC2_METADATA_DISABLED": "true", **keys}


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of this process in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _make_bucket() -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket=_BUCKET.removeprefix("s3://"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
