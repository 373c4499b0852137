"""Fetch the parts of a Flink cluster on this machine: Flink's jars from PyPI, and Beam's job server, built by Maven.

`$XDG_CACHE_HOME/pairloss/flink`, by default `~/.cache/pairloss/flink`, keeps both, whole or not at all. pip and Maven
fetch them and check their hashes, so that an organisation's own indexes and proxies are honoured.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transforms.losses.networks.weights_file import cache_directory

FLINK_VERSION = "1.19.3"
LEAST_JAVA = 17

_PACKAGE = "apache-flink-libraries"
_SDIST_SHA256 = "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
_JARS = f"{_PACKAGE}-{FLINK_VERSION}/deps/lib/"
_POM = Path(__file__).with_name("pom.xml")


class FlinkError(Exception):
    """The cluster does not start. The message says what is missing or failed, and what helps."""


def find_java() -> Path:
    """Find Java of at least `LEAST_JAVA`: the one of `JAVA_HOME`, or else the first on the path.

    Raises:
        FlinkError: Java is missing or too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin") if home else None)
    if not java:
        raise FlinkError(f"Flink needs Java {LEAST_JAVA} or newer; found no java {_searched(home)}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if not version or int(version[1]) < LEAST_JAVA:
        first = told.strip().partition("\n")[0]
        raise FlinkError(f"Flink needs Java {LEAST_JAVA} or newer; {java} is {first}. Set JAVA_HOME to a newer one")
    return Path(java)


def flink_jars() -> Path:
    """Return the directory of Flink's jars; fetch them first if they are missing.

    Raises:
        FlinkError: pip could not fetch them.
    """
    path = _cache() / f"flink-{FLINK_VERSION}"
    if not path.is_dir():
        with _scratch() as scratch, tarfile.open(_download(scratch)) as archive:
            jars = [member for member in archive.getmembers() if member.name.startswith(_JARS)]
            archive.extractall(scratch, jars, filter="data")
            _publish(scratch / _JARS, path)
    return path


def job_server_jar() -> Path:
    """Return the job server's jar; build it first if there is none for this pom.xml.

    Raises:
        FlinkError: Maven is missing, or it could not build the jar.
    """
    path = _cached_jar()
    if not path.is_file():
        maven = shutil.which("mvn")
        if not maven:
            raise FlinkError(f"Beam's job server for Flink is built by Maven; found no mvn {_searched()}")
        with _scratch() as scratch:
            shutil.copy(_POM, scratch)
            command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(scratch / _POM.name)]
            _run([*command, "package"], "Maven could not build Beam's job server for Flink")
            _publish(scratch / "target" / "flink-job-server-1.jar", path)
    return path


def missing_tools() -> str:
    """Say what this machine lacks for a cluster; empty: nothing."""
    missing = []
    try:
        find_java()
    except FlinkError as error:
        missing.append(str(error))
    if not _cached_jar().is_file() and not shutil.which("mvn"):
        missing.append("Beam's job server for Flink is built by Maven; found no mvn")
    return "; ".join(missing)


def _cache() -> Path:
    return cache_directory() / "flink"


def _cached_jar() -> Path:
    return _cache() / f"flink-1.19-job-server-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]}.jar"


def _searched(home: str | None = None) -> str:
    return f"in JAVA_HOME={home}" if home else "on the PATH"


@contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a directory beside the cached files, so that a rename out of it is atomic."""
    _cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache(), prefix=".unfinished-") as scratch:
        yield Path(scratch)


def _publish(made: Path, path: Path) -> None:
    try:
        made.rename(path)
    except OSError:
        # A directory cannot replace another. If a second process was faster, it made the same files.
        if not path.exists():
            raise


def _download(directory: Path) -> Path:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{_PACKAGE}=={FLINK_VERSION} --hash=sha256:{_SDIST_SHA256}\n", encoding="utf-8")
    # pip's cache need not keep another copy of these 230 MB.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps"]
    command += [f"--no-binary={_PACKAGE}", "--require-hashes", "--requirement", str(requirements)]
    _run([*command, "--dest", str(directory)], f"pip could not fetch {_PACKAGE} {FLINK_VERSION}")
    return directory / f"{_PACKAGE}-{FLINK_VERSION}.tar.gz"


def _run(command: Sequence[str], problem: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # pip reports errors on one stream, Maven on the other; both print the cause first.
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise FlinkError(f"{problem}: {' | '.join(lines[:3])}")
