"""The parts and requirements of a Flink cluster on this machine; test_flink.py tests the cluster itself."""

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.child_setup import interruptible

import deploy.flink
from deploy.flink.compare import NO_FLINK, main, same_table
from deploy.flink.downloads import FlinkError, find_java, flink_jars, job_server_jar, missing_tools
from deploy.flink.processes import ProcessGroup, children, free_ports, is_listening, wait_until

# Starts a child that outlives it, prints the child's process id, and waits.
WITH_CHILD = ["sh", "-c", "sleep 600 & echo $!; wait"]

# A fake Maven, whose jar is the pom.
MAVEN = """
while [ "$1" != --file ]; do shift; done
cd "${2%/*}" && mkdir target && cp pom.xml target/flink-job-server-1.jar
"""

# Owns a group of processes and prints the process id of a member.
OWNER = """
import time
from deploy.flink.processes import ProcessGroup
with ProcessGroup() as group:
    print(group.start(["sleep", "600"]).pid, flush=True)
    time.sleep(600)
"""


def runs(pid: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return listed.strip() != "" and not listed.startswith("Z")


def first_number(log: Path) -> int:
    assert wait_until(lambda: log.read_text().endswith("\n"), 60)
    return int(log.read_text().split()[0])


class TestProcesses:
    def test_child_of_a_killed_process_ends_with_the_block(self, tmp_path):
        log = tmp_path / "log"
        with ProcessGroup() as group:
            parent = group.start(WITH_CHILD, log)
            child = first_number(log)
            assert [process.pid for process in children(parent.pid)] == [child]
            assert all(process.kib > 0 for process in children(parent.pid))
            parent.kill()
            parent.wait()
            assert runs(child)
        assert wait_until(lambda: not runs(child), 60)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_processes_end_with_their_owner(self, number):
        command = interruptible([sys.executable, "-c", OWNER])
        owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        member = int(owner.stdout.readline())
        assert runs(member)
        owner.send_signal(number)
        owner.communicate(timeout=60)
        assert wait_until(lambda: not runs(member), 60)

    def test_process_gets_its_own_environment_and_directory(self, tmp_path):
        log = tmp_path / "log"
        with ProcessGroup() as group:
            variables = {**os.environ, "COLOUR": "green"}
            code = group.start(["sh", "-c", "echo $COLOUR; pwd"], log, variables, directory=tmp_path).wait()
        assert (code, log.read_text().split()) == (0, ["green", str(tmp_path.resolve())])

    def test_ports_are_free_and_distinct(self):
        ports = free_ports(3)
        assert len(set(ports)) == 3
        assert not any(is_listening(f"localhost:{port}") for port in ports)

    def test_waiting_ends_in_time(self):
        assert not wait_until(lambda: False, 0.05, each=0.01)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """A machine with an empty PATH and an empty cache; tests put programs into the returned directory."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return programs


def cached(machine: Path) -> list[str]:
    return [path.name for path in (machine.parent / "cache" / "pairloss" / "flink").glob("*")]


def install(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def install_java(path: Path, version: str) -> None:
    install(path, f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


class TestJava:
    @pytest.mark.parametrize("version", ["17", "17.0.15", "21.0.1"])
    def test_new_enough(self, machine, version):
        install_java(machine / "java", version)
        assert find_java() == machine / "java"

    @pytest.mark.parametrize("version", ["11.0.2", "1.8.0_292", "nonsense"])
    def test_too_old(self, machine, version):
        install_java(machine / "java", version)
        with pytest.raises(FlinkError, match=f"Java 17 or newer; {machine}/java is openjdk .*{version}.*JAVA_HOME"):
            find_java()

    def test_java_home_comes_first(self, machine, tmp_path, monkeypatch):
        install_java(machine / "java", "11")
        install_java(tmp_path / "jdk" / "bin" / "java", "17")
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
        assert find_java() == tmp_path / "jdk" / "bin" / "java"

    def test_missing(self, machine, monkeypatch):
        with pytest.raises(FlinkError, match="needs Java 17 or newer; found no java on the PATH"):
            find_java()
        monkeypatch.setenv("JAVA_HOME", "/nowhere")
        with pytest.raises(FlinkError, match="found no java in JAVA_HOME=/nowhere"):
            find_java()


class TestJobServer:
    def test_built_once_for_each_pom(self, machine):
        pom = Path(deploy.flink.__file__).with_name("pom.xml").read_bytes()
        install(machine / "mvn", MAVEN)
        jar = job_server_jar()
        assert jar.read_bytes() == pom
        assert hashlib.sha256(pom).hexdigest()[:16] in jar.name
        # Beam's checks and ours read Flink's version from the name.
        assert "flink-1.19" in jar.name
        assert cached(machine) == [jar.name]
        (machine / "mvn").unlink()
        assert job_server_jar() == jar

    def test_failed_build_leaves_nothing(self, machine):
        install(machine / "mvn", "echo '[ERROR] Could not resolve dependencies'; exit 1")
        with pytest.raises(FlinkError, match=r"Maven could not build .*Could not resolve dependencies"):
            job_server_jar()
        assert cached(machine) == []

    def test_no_maven(self, machine):
        with pytest.raises(FlinkError, match=r"is built by Maven; found no mvn on the PATH"):
            job_server_jar()


class TestFlinkJars:
    NAME = "apache-flink-libraries-1.19.3"

    @pytest.fixture(autouse=True)
    def index(self, machine, tmp_path, monkeypatch) -> Path:
        """The only directory in which pip looks for packages."""
        index = tmp_path / "index"
        index.mkdir()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(index))
        return index

    def test_no_index(self, machine):
        with pytest.raises(FlinkError, match=r"pip could not fetch apache-flink-libraries 1\.19\.3: "):
            flink_jars()
        assert cached(machine) == []

    def test_other_content_is_refused(self, machine, index, tmp_path):
        (tmp_path / "setup.py").write_text("raise SystemExit('it was run')")
        with tarfile.open(index / f"{self.NAME}.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "setup.py", f"{self.NAME}/setup.py")
        with pytest.raises(FlinkError, match="HASHES") as caught:
            flink_jars()
        assert "it was run" not in str(caught.value)
        assert cached(machine) == []


class TestCompare:
    TABLE = pa.table({"source": ["a#0", "a#1"], "loss": pa.array([0.1, 0.2], pa.float32())})

    @pytest.mark.parametrize(
        "other",
        [
            TABLE.slice(1),
            TABLE.replace_schema_metadata({"pairloss.precision": "bfloat16"}),
            TABLE.cast(pa.schema({"source": pa.string(), "loss": pa.float64()})),
            TABLE.set_column(1, "loss", pa.array([0.1, np.nextafter(np.float32(0.2), np.float32(1))], pa.float32())),
        ],
        ids=["row", "metadata", "type", "bit"],
    )
    def test_any_difference_is_seen(self, other):
        assert same_table(self.TABLE, pa.concat_tables([self.TABLE.slice(0, 1), self.TABLE.slice(1)]))
        assert not same_table(self.TABLE, other)

    def test_missing_tools_are_told_before_any_run(self, machine, tmp_path, capsys):
        assert main(["--input=pairs.parquet", f"--output={tmp_path}/out"]) == NO_FLINK
        assert capsys.readouterr().err.startswith("error: Flink needs Java 17")
        assert not (tmp_path / "out").exists()


def test_all_missing_tools_are_named(machine):
    assert "Java 17" in missing_tools()
    assert "Maven" in missing_tools()
    install_java(machine / "java", "17")
    assert "Java" not in missing_tools()
    install(machine / "mvn", "")
    assert missing_tools() == ""


@pytest.mark.heavy
@pytest.mark.parametrize(("required", "code", "told"), [("", 0, "SKIPPED"), ("prism,flink", 1, "PAIRLOSS_REQUIRE")])
def test_missing_tools_are_told_aloud(machine, monkeypatch, capsys, required, code, told):
    monkeypatch.setenv("PAIRLOSS_REQUIRE", required)
    # In this process, which has already imported TensorFlow and Beam.
    tests = ["tests/pipeline/engines/test_flink.py", "-k", "optimizes"]
    # These two plugins would change what the outer run keeps.
    assert pytest.main(["-p", "no:cacheprovider", "-p", "no:faulthandler", *tests]) == code
    printed = capsys.readouterr().out
    assert any("Java 17" in line for line in printed.splitlines() if told in line), printed
