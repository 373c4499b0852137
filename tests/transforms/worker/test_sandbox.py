"""The sandbox: a record that kills its process costs itself alone, and nothing is left behind."""

import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.pictures import encode, smooth
from support.sandbox_tasks import DEADLY

from transforms.images.decode import DecodePolicy
from transforms.images.pairs import DecodedPair
from transforms.images.sandboxed import decode_pairs
from transforms.worker.sandbox import Sandbox, SandboxError, end_children

pytestmark = pytest.mark.heavy

SANDBOX = Sandbox(seconds=1, memory=2 << 30)
READ = "support.sandbox_tasks:read"
ROOT = Path(__file__).parents[3]


def read(*names: str, sandbox: Sandbox = SANDBOX) -> list[str]:
    """Return for each record the record backwards, or the reason for which it failed."""
    found = sandbox.each(READ, {}, [[name.encode()] for name in names])
    return [item.reason if isinstance(item, SandboxError) else bytes(item[1][0]).decode() for item in found]


@pytest.mark.parametrize("name", DEADLY)
def test_a_record_that_ends_its_process_fails_and_no_other(name: str) -> None:
    """Wherever it lies among others, and if it lies there twice."""
    records = ["a", name, "b", "c", name]
    assert read(*records) == [DEADLY.get(record, record[::-1]) for record in records]


def test_a_record_that_waits_for_ever_is_given_up() -> None:
    """It takes no CPU time, so it is the clock on the wall that ends it."""
    started = time.monotonic()
    assert read("a", "sleep", "b", sandbox=Sandbox(seconds=0.1)) == ["a", "timed_out", "b"]
    assert time.monotonic() - started < 30


def test_time_is_counted_for_each_record() -> None:
    """Many records may take more than one of them may."""
    assert read(*["a"] * 2000) == ["a"] * 2000


def test_a_record_does_not_pay_for_imports() -> None:
    """Compiling a module as it is imported does not count either."""
    assert [item for item, _ in Sandbox(seconds=1).call("support.slow_import:nothing", None)] == ["done"]


def test_a_record_does_not_pay_for_memory_of_imports() -> None:
    """They do not count either if its child has served another task, with a limit below what these libraries take."""
    sandbox = Sandbox(memory=64 << 20)
    list(sandbox.call("support.sandbox_tasks:process", None))
    image = encode(smooth(8, 8))
    (pair,) = decode_pairs([(image, image)], DecodePolicy(), sandbox)
    assert isinstance(pair, DecodedPair)


def test_a_record_does_not_wait_for_libraries() -> None:
    """Those of a task with children of its own take longer than a record may."""
    found = Sandbox(seconds=0.01).each("support.slow_import:nothing", {}, [[b""]], apart=True)
    assert [item for item, _ in found] == ["done"]


def test_a_task_may_have_children_of_its_own() -> None:
    """They serve no other, and are used again."""
    pids = []
    for apart in (True, False, True, False):
        ((pid, _),) = SANDBOX.each("support.sandbox_tasks:process", {}, [[b""]], apart)
        pids.append(pid)
    assert pids[0] == pids[2] != pids[1] == pids[3]


def test_a_record_does_not_pay_for_those_before_it() -> None:
    """It gets another process where its own was short of memory."""
    assert read("leak", "large", "a") == ["kael", "egral", "a"]


@pytest.mark.parametrize("sandbox", [SANDBOX, Sandbox(enabled=False)], ids=["on", "off"])
def test_nulls_and_empty_values_come_through(sandbox: Sandbox) -> None:
    """A null is not the same as an empty value."""
    found = list(sandbox.each(READ, {}, [[None, b"ab"], [b"", None], [None, None]]))
    assert [[bytes(part) for part in parts] for _, parts in found] == [[b"ba"], [b""], []]


@pytest.mark.parametrize("sandbox", [SANDBOX, Sandbox(enabled=False)], ids=["on", "off"])
def test_a_file_is_read_by_its_worker(sandbox: Sandbox) -> None:
    """In ranges, up to its end and beyond."""
    file = io.BytesIO(bytes(range(100)))
    found = list(sandbox.call("support.sandbox_tasks:read_file", [[0, 10], [95, 10], [200, 1]], file=file))
    assert [bytes(parts[0]) for _, parts in found] == [bytes(range(10)), bytes(range(95, 100)), b""]


def test_a_local_file_is_read_by_its_descriptor(tmp_path: Path) -> None:
    """Nobody asks the worker for ranges, and the child keeps no descriptor."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    sandbox = Sandbox(seconds=3)
    ranges = [[0, 10], [95, 10], [200, 1]]
    descriptors: list[int] = []
    with open(path, "rb") as file:
        unread = SimpleNamespace(seek=file.seek, fileno=file.fileno)
        for _ in range(3):
            found = list(sandbox.call("support.sandbox_tasks:read_file", ranges, file=unread))
            assert [bytes(parts[0]) for _, parts in found] == [bytes(range(10)), bytes(range(95, 100)), b""]
            ((descriptor, _),) = sandbox.call("support.sandbox_tasks:descriptors", None)
            descriptors += descriptor
    assert len(set(descriptors)) == 1


def test_an_error_of_reading_is_the_workers() -> None:
    """Its type is kept, for it tells what to do."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        list(SANDBOX.call("support.sandbox_tasks:read_file", [[0, 1]], file=Broken(b"abc")))


@pytest.mark.parametrize(
    ("name", "type"), [("ValueError", ValueError), ("OSError", OSError), ("RuntimeError", OSError)]
)
def test_an_error_of_a_task_is_raised(name: str, type: type[Exception]) -> None:
    """After the items that came before it; of any type that nobody expects as OSError."""
    items = SANDBOX.call("support.sandbox_tasks:fail", name)
    assert next(items)[0] == 1
    with pytest.raises(type, match="what happened"):
        next(items)


def test_threads_share_the_children() -> None:
    """Every record of every thread gets its own result."""
    tasks = [[f"record-{n}-{m}" for m in range(20)] for n in range(40)]
    tasks[7][3] = tasks[30][19] = "segfault"
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda names: read(*names), tasks))
    assert found == [["crashed" if name == "segfault" else name[::-1] for name in names] for names in tasks]


def test_a_child_is_used_again() -> None:
    """Starting one takes 0.3 s."""
    (first,), (second,) = ([pid for pid, _ in SANDBOX.call("support.sandbox_tasks:process", None)] for _ in range(2))
    assert first == second != os.getpid()


def test_a_child_that_died_in_between_costs_nothing() -> None:
    """Such as by the kernel, for lack of memory."""
    ((pid, _),) = SANDBOX.call("support.sandbox_tasks:process", None)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert read("a", "b") == ["a", "b"]


def test_a_default_timeout_of_sockets_does_not_matter() -> None:
    """A library may set one for its own connections, and every new socket then starts non-blocking."""
    end_children()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.05)
    try:
        assert read("a", "b", sandbox=Sandbox(seconds=5.5)) == ["a", "b"]
    finally:
        socket.setdefaulttimeout(before)


def test_ctrl_c_is_not_for_children() -> None:
    """The worker decides when they end."""
    ((pid, _),) = SANDBOX.call("support.sandbox_tasks:process", None)
    os.kill(pid, signal.SIGINT)
    ((again, _),) = SANDBOX.call("support.sandbox_tasks:process", None)
    assert again == pid
    assert os.getpgid(pid) != os.getpgid(0)


SCRIPT = """
from transforms.worker.sandbox import Sandbox

sandbox = Sandbox({settings})
print([item[0] for item in sandbox.each("support.sandbox_tasks:read", {{}}, [[b"a"], [b"print"], [b"spin"[:0]]])])
"""


def run(arguments: list[str], **settings: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **settings)  # type: ignore[call-overload]


@pytest.mark.parametrize("way", ["a script without a main guard", "standard input", "-c"])
def test_it_works_wherever_the_program_came_from(way: str, tmp_path: Path) -> None:
    """A child runs nothing of the worker's `__main__`, nor what lies in the worker's directory."""
    script = SCRIPT.format(settings="")
    (tmp_path / "numpy.py").write_text("raise SystemExit('not that numpy')", encoding="utf-8")
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    arguments, text = {"standard input": (["-P", "-"], script), "-c": (["-P", "-c", script], "")}.get(
        way, (["-P", str(tmp_path / "script.py")], "")
    )
    done = run(arguments, input=text, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[1, 5, 0]\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the limit")
def test_it_works_below_a_limit_of_memory_that_the_user_has_set() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))

    done = run(["-c", SCRIPT.format(settings="memory=64 << 30")], preexec_fn=limit)
    assert (done.stdout, done.stderr) == ("[1, 5, 0]\n", "")


def test_what_libraries_print_is_shown_on_request() -> None:
    """Both their outputs, where errors go."""
    done = run(["-c", SCRIPT.format(settings="verbose=True")])
    assert done.stdout == "[1, 5, 0]\n"
    assert done.stderr.count("from a C library") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_worker_leaves_no_child() -> None:
    """Not even one that is in the middle of something."""
    script = """
import threading, time
from transforms.worker.sandbox import Sandbox
sandbox = Sandbox()
((pid, _),) = sandbox.call("support.sandbox_tasks:process", None)
threading.Thread(target=lambda: list(sandbox.each("support.sandbox_tasks:read", {}, [[b"sleep"]]))).start()
time.sleep(0.3)
print(pid, flush=True)
time.sleep(1000)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        pid = int(worker.stdout.readline())
        assert is_alive(pid)
        worker.kill()
    deadline = time.monotonic() + 2
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """True if the process exists and its exit code has not been collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_process_has_children_of_its_own() -> None:
    """Two processes at one child would mix up their messages."""
    script = """
import os
from transforms.worker.sandbox import Sandbox
def child():
    return [pid for pid, _ in Sandbox().call("support.sandbox_tasks:process", None)]
first = child()
if not (forked := os.fork()):
    print(child() != first, flush=True)
    os._exit(0)
os.waitpid(forked, 0)
print(child() == first)
"""
    assert run(["-c", script]).stdout == "True\nTrue\n"


@pytest.mark.parametrize("settings", [{"seconds": 0}, {"memory": 0}])
def test_limits_are_positive(settings: dict[str, float]) -> None:
    """Nothing could be read within others."""
    with pytest.raises(ValueError, match="finite ones above 0"):
        Sandbox(**settings)


def test_without_proc() -> None:
    """Some containers have none; only the limits that need it are looser then."""
    program = (
        "from transforms.worker.memory import available_memory; from transforms.worker.sandbox import Sandbox; "
        f"assert available_memory() > 0; print(len(list(Sandbox().each({READ!r}, {{}}, [[b'a'], [b'b']]))))"
    )
    hidden = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none /proc && exec "$@"',
        "",
    ]
    if not shutil.which("unshare") or subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("unshare cannot hide /proc here")
    path = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([*hidden, sys.executable, "-c", program], capture_output=True, text=True, env=path)
    assert done.stdout == "2\n", done.stderr
