"""Build deploy/Dockerfile without Docker: `python tests/support/image_build.py DIRECTORY`.

Executes RUN, COPY, ENV and ARG of the stages that start from the Python image. Each stage is a directory, absolute
paths are redirected into it, and one virtual environment stands for the Python image and its /usr/local. Files from
other images (Beam's boot, the template launcher) are left out, and no user is created.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from dockerfile_parse import DockerfileParser

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
_PYTHON_IMAGE = "python:"
_PATH = re.compile(r"(?<![\w./-])/(?:src|install|package|cache|opt|usr/local|var|tmp)(?![\w-])")


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile, such as `RUN`, and the rest of its line."""

    instruction: str
    value: str


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the image or stage it starts from, and its instructions after FROM."""

    name: str
    base: str
    steps: tuple[Step, ...]

    def values(self, instruction: str) -> list[str]:
        """The arguments of every occurrence of the instruction."""
        return [step.value for step in self.steps if step.instruction == instruction]


def stages(dockerfile: str) -> list[Stage]:
    """The stages of a Dockerfile; a last stage without a name is called `final`."""
    found: list[Stage] = []
    for entry in DockerfileParser(fileobj=BytesIO(dockerfile.encode())).structure:
        if entry["instruction"] == "COMMENT":
            continue
        if entry["instruction"] == "FROM":
            base, _, name = entry["value"].partition(" AS ")
            found.append(Stage(name or "final", base, ()))
        else:
            last = found.pop()
            step = Step(entry["instruction"], entry["value"])
            found.append(Stage(last.name, last.base, (*last.steps, step)))
    return found


class Build:
    """The image, built in a directory.

    Attributes:
        python_image: the virtual environment that stands for the Python image.
        root: the directory that stands for `/` in the last stage.
    """

    def __init__(self, directory: Path, borrowed: Path | None = None):
        """Build it.

        Args:
            directory: an empty directory.
            borrowed: a site-packages directory whose packages are used instead of being installed again.
        """
        self.python_image = directory / "python"
        self.root = directory / "final"
        self._directory = directory
        venv.create(self.python_image, with_pip=True)
        if borrowed:
            (site,) = self.python_image.glob("lib/python*/site-packages")
            (site / "borrowed.pth").write_text(f"{borrowed}\n")
        # The build must not create users on this machine.
        (self.python_image / "bin" / "useradd").symlink_to("/bin/true")
        states: dict[str, _State] = {}
        for stage in stages(DOCKERFILE.read_text()):
            if stage.base in states:
                shutil.copytree(directory / stage.base, directory / stage.name, symlinks=True)
                states[stage.name] = self._build(stage, states[stage.base])
            elif stage.base.startswith(_PYTHON_IMAGE):
                states[stage.name] = self._build(stage, _State())
        self._settings = states["final"].settings

    def environment(self, **more: str) -> dict[str, str]:
        """The environment variables of a process in the image: ENV and PATH."""
        settings = {name: self.locate(value) for name, value in self._settings.items()}
        return {"PATH": self._path, **settings, **more}

    def locate(self, text: str) -> str:
        """The text with absolute paths of the final image redirected to this machine."""
        return self._locate(text, self.root)

    @property
    def _path(self) -> str:
        return f"{self.python_image / 'bin'}:{os.environ['PATH']}"

    def _locate(self, text: str, root: Path) -> str:
        def lead(match: re.Match[str]) -> str:
            return str(self.python_image) if match[0] == "/usr/local" else f"{root}{match[0]}"

        return _PATH.sub(lead, text)

    def _build(self, stage: Stage, inherited: "_State") -> "_State":
        root = self._directory / stage.name
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        settings, arguments, work = dict(inherited.settings), {}, inherited.work
        for step in stage.steps:
            here = Path(self._locate(work, root))
            if step.instruction == "ARG":
                name, _, arguments[name] = step.value.partition("=")
            elif step.instruction == "ENV":
                settings |= dict(pair.split("=", 1) for pair in step.value.split())
            elif step.instruction == "WORKDIR":
                work = step.value
                Path(self._locate(work, root)).mkdir(parents=True, exist_ok=True)
            elif step.instruction == "COPY":
                self._copy(step.value.split(), root, here)
            elif step.instruction == "RUN":
                located = {name: self._locate(value, root) for name, value in settings.items()}
                environment = {**os.environ, **arguments, **located, "PATH": self._path}
                command = ["bash", "-euc", self._locate(step.value, root)]
                subprocess.run(command, cwd=here, env=environment, check=True)
        return _State(settings, work)

    def _copy(self, words: list[str], root: Path, work: Path) -> None:
        *sources, target = words
        origin = REPOSITORY
        if sources[0].startswith("--from="):
            origin = self._directory / sources.pop(0).removeprefix("--from=")
        if not origin.exists():
            return
        destination = work / self._locate(target, root)
        for source in sources:
            found = origin / source.removeprefix("/")
            if found.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(found, destination, dirs_exist_ok=True, symlinks=True, ignore=ignore)
            else:
                into = destination / found.name if target.endswith("/") else destination
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)


@dataclass(frozen=True)
class _State:
    """The variables of ENV and the working directory, which a stage hands on with its files."""

    settings: Mapping[str, str] = field(default_factory=dict)
    work: str = "/tmp"


if __name__ == "__main__":
    Build(Path(sys.argv[1]))
