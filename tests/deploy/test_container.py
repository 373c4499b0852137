"""The container image: its versions, and a build in a directory, as far as that is possible without Docker.

The build borrows the dependencies from the environment of the tests; `python tests/support/image_build.py DIRECTORY`
installs them as well.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from support import shards
from support.audit_runs import pair
from support.image_build import DOCKERFILE, REPOSITORY, Build, Stage, stages

from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import sha256_hex

DEPLOY = REPOSITORY / "deploy"
STAGES = {stage.name: stage for stage in stages(DOCKERFILE.read_text())}
FINAL = STAGES["final"]
# Refuses every address outside this machine and names it.
NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1][0]
        if host not in ("localhost", "127.0.0.1", "::1", "/"):
            raise OSError(f"no network: cannot reach {host}")

sys.addaudithook(refuse)
"""


def pins(path: Path) -> dict[str, str]:
    """The names and versions in a constraints file."""
    lines = (line.partition(";")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def copied(stage: Stage) -> list[str]:
    """The paths that the stage copies from the repository."""
    words = [value.split() for value in stage.values("COPY")]
    return [source for *sources, _ in words if not sources[0].startswith("--from=") for source in sources]


class TestText:
    def test_hadolint(self):
        hadolint = Path(sys.executable).parent / "hadolint"
        ended = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (0, "")

    def test_shellcheck(self):
        shellcheck = Path(sys.executable).parent / "shellcheck"
        ended = subprocess.run([shellcheck, DEPLOY / "entrypoint.sh"], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (0, "")

    def test_what_is_copied_is_what_the_builder_sees(self):
        ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        seen = {line[1:] for line in ignore if line.startswith("!")}
        assert ignore.index("*") < min(ignore.index(f"!{name}") for name in seen)
        wanted = {source for stage in STAGES.values() for source in copied(stage)}
        assert {name for name in wanted if name.partition("/")[0] not in seen} <= seen
        assert not [name for name in seen if not any(f"{source}/".startswith(f"{name}/") for source in wanted)]
        assert not [name for name in wanted if not (REPOSITORY / name).exists()]

    def test_the_weights_stage_has_every_module_that_fetching_imports(self, tmp_path):
        for source in copied(STAGES["weights"]):
            (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / source, tmp_path / source)
        fetchers = {network.fetch.partition(":")[0] for network in NETWORKS.values() if network.sha256}
        command = f"import pipeline.weights, {', '.join(sorted(fetchers))}"
        ended = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")


class TestVersions:
    def test_every_image_is_pinned(self):
        bases = {stage.base for stage in STAGES.values()} - STAGES.keys()
        assert len(bases) == 3
        assert not [base for base in bases if re.search(r"(:latest|^[^:]*)$", base)]

    def test_beam(self):
        assert STAGES["beam"].base.endswith(f":{pins(REPOSITORY / 'constraints.txt')['apache-beam']}")

    def test_python_is_the_same_everywhere(self):
        beam, template = STAGES["beam"].base, STAGES["template"].base
        (ours,) = {stage.base for stage in STAGES.values() if stage.base.startswith("python:")}
        assert (series := re.match(r"python:(3\.\d+)\.", ours))
        assert f"/beam_python{series[1]}_sdk:" in beam
        assert f"/python{series[1].replace('.', '')}-template-launcher-base:" in template
        assert f"/python{series[1]}/" in STAGES["dependencies"].values("ENV")[0]

    @pytest.mark.skipif(
        version("tensorflow") != pins(REPOSITORY / "constraints.txt")["tensorflow"],
        reason="another TensorFlow is installed than the image has",
    )
    def test_the_gpu_image_pins_what_tensorflow_adds(self):
        extra = [Requirement(text) for text in requires("tensorflow") or () if "and-cuda" in text]
        wanted = {requirement.name: requirement.specifier for requirement in extra}
        pinned = pins(DEPLOY / "constraints-gpu.txt")
        assert pinned.keys() == wanted.keys()
        assert not [name for name, version in pinned.items() if version not in wanted[name]]

    def test_the_user_is_not_root(self):
        (user,) = FINAL.values("USER")
        defaults = dict(value.split("=") for value in FINAL.values("ARG"))
        # For runAsNonRoot, Kubernetes needs the user as a number.
        assert int(defaults[user.strip("${}")]) >= 1000
        assert f"--uid={defaults['RUN_AS']} " in " ".join(FINAL.values("RUN"))


@pytest.mark.slow
class TestImage:
    @pytest.fixture(scope="class")
    def image(self, tmp_path_factory) -> Build:
        return Build(tmp_path_factory.mktemp("image"), borrowed=Path(sysconfig.get_path("purelib")))

    @pytest.fixture
    def offline(self, image, tmp_path) -> dict[str, str]:
        """The environment of a process in the image, without a network and with a home that cannot be written to."""
        (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
        return image.environment(HOME="/dev/null", PYTHONPATH=str(tmp_path), TMPDIR=str(tmp_path))

    @staticmethod
    def start(image: Build, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
        """Start a command as `docker run IMAGE COMMAND...` does."""
        (entrypoint,) = FINAL.values("ENTRYPOINT")
        words = re.findall(r'"([^"]*)"', image.locate(entrypoint))
        work = image.locate(FINAL.values("WORKDIR")[-1])
        return subprocess.run(
            [*words, *command], env=environment, cwd=work, capture_output=True, text=True, timeout=200
        )

    @staticmethod
    def files(image: Build) -> Iterator[Path]:
        return (path for top in (image.python_image, image.root / "opt") for path in top.rglob("*"))

    @staticmethod
    def contents(directory: Path) -> dict[Path, bytes]:
        files = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(directory): path.read_bytes() for path in files}

    def test_the_package_is_whole(self, image):
        (site,) = image.python_image.glob("lib/python*/site-packages")
        for package in ("pairloss", "pipeline", "transforms"):
            wanted, found = (self.contents(top / package) for top in (REPOSITORY, site))
            assert found == wanted

    def test_it_prints_its_commands(self, image, offline):
        (default,) = FINAL.values("CMD")
        ended = self.start(image, offline, *re.findall(r'"([^"]*)"', default))
        assert ended.returncode == 0, ended.stderr
        assert "score a dataset of image pairs" in ended.stdout

    def test_it_scores_with_the_weights_it_brings_and_writes_nothing_into_itself(self, image, offline, tmp_path):
        weights = Path(image.environment()["XDG_CACHE_HOME"]) / "pairloss" / "lpips-v0.1-vgg16.safetensors"
        assert sha256_hex(weights.read_bytes()) == NETWORKS["vgg16_lpips"].sha256
        assert weights.stat().st_mode & 0o444 == 0o444
        shards.write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist([pair(number) for number in range(3)]))
        before = set(self.files(image))
        module = "import pipeline; print(pipeline.__file__)"
        assert str(image.python_image) in self.start(image, offline, "python", "-c", module).stdout
        command = f"python -m pipeline.run --runner=DirectRunner --input={tmp_path}/*.parquet --output={tmp_path}/run"
        ended = self.start(image, offline, *command.split())
        assert ended.returncode == 0, ended.stderr
        assert pq.read_table(tmp_path / "run" / "metrics")["lpips_vgg"].null_count == 0
        assert not {path for path in set(self.files(image)) - before if "__pycache__" not in path.parts}

    def test_the_template_launcher_finds_the_program(self, image, offline):
        file = offline["FLEX_TEMPLATE_PYTHON_PY_FILE"]
        command = ["python", file, "--runner=DataflowRunner", "--input=pairs.parquet", "--output=gs://bucket/run"]
        ended = self.start(image, offline, *command)
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: ")

    @pytest.mark.parametrize("flags", [["--worker_pool"], ["--id=1-1", "--provision_endpoint=localhost:1234"]])
    def test_engines_start_workers_with_flags(self, tmp_path, flags):
        boot = tmp_path / "boot"
        boot.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        boot.chmod(0o755)
        script = (DEPLOY / "entrypoint.sh").read_text().replace("/opt/apache/beam/boot", str(boot))
        ended = subprocess.run(["sh", "-c", script, "entrypoint", *flags], capture_output=True, text=True)
        assert ended.stdout.split() == flags
