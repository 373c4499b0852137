"""The walls of the house, read from the imports: a lower room never imports a higher one, and nothing is circular.

An arrow counts wherever the import stands: at the top of a module, inside a function, or for type checking only. The
test for circles looks at what runs when a module is imported: the top of modules, without TYPE_CHECKING.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("transforms", "pipeline", "pairloss")

# The rooms of each house from the ground up: a room imports from those before it.
TRANSFORMS = (
    *("settings", "columns", "work", "row_keys", "failure", "schema"),
    *("worker", "storage", "images", "losses", "descent"),
    *("reading", "scoring", "summary", "writing", "steps"),
)
AUDIT = ("runs", "judging", "pages", "verbs")

# The rooms of transforms/ that may import a library or a part of it: the longest name counts.
LIBRARIES = {
    "tensorflow": {"worker", "losses", "descent", "reading", "writing"},
    "apache_beam": {"steps"},
    "apache_beam.io.aws": {"storage"},
    "apache_beam.io.filesystem": {"storage", "reading"},
    "apache_beam.io.filesystemio": {"storage"},
    "apache_beam.io.filesystems": {"storage", "reading", "writing"},
    "apache_beam.io.localfilesystem": {"storage"},
    "apache_beam.metrics": {"worker"},
    "apache_beam.options": {"storage"},
    "apache_beam.utils.shared": {"scoring"},
}


def modules() -> dict[str, Path]:
    """Every module of the packages by its name; a package is named without `__init__`."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in paths]
    names = [name[:-1] if name[-1] == "__init__" else name for name in parts]
    return {".".join(name): path for name, path in zip(names, paths, strict=True)}


MODULES = modules()


def imports(module: str, at_import: bool = False) -> set[str]:
    """The modules that a module imports; `at_import`: only those that run when it is imported."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = _run_at_import(tree) if at_import else ast.walk(tree)
    return set(_targets(nodes))


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not lazy and not for_types:
            yield child
            yield from _run_at_import(child)


def _targets(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "imports are absolute"
            # `from package import name` may import a module or a name in it.
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in submodules if name in MODULES]
            yield from found
            if len(found) < len(submodules):
                yield node.module


def room(module: str, house: str) -> str | None:
    """The room of a house, such as `reading` of `transforms`, that a module lies in; None if it lies elsewhere."""
    return module.removeprefix(f"{house}.").partition(".")[0] if module.startswith(f"{house}.") else None


def arrows_up(house: str, order: tuple[str, ...], rest: str = "") -> list[str]:
    """The imports that go from a room to a later one; rooms that `order` lacks count as the room `rest`."""
    found = []
    for module in MODULES:
        for target in imports(module):
            here, there = (room(name, house) for name in (module, target))
            if here and there and here != there:
                floors = [order.index(name if name in order else rest) for name in (here, there)]
                found += [f"{module} imports {target}"] if floors[0] < floors[1] else []
    return sorted(found)


def test_imports_are_seen():
    """The walls would stand in an empty house as well."""
    assert {"apache_beam", "transforms.steps", "pipeline.config"} <= imports("pipeline.graph")
    assert "transforms.losses.evaluate" in imports("transforms.scoring.score")
    assert "transforms.losses.evaluate" not in imports("transforms.scoring.score", at_import=True)
    assert room("transforms.losses.networks.vgg16", "transforms") == "losses"


def test_transforms_has_no_arrow_up():
    assert arrows_up("transforms", TRANSFORMS) == []


def test_audit_has_no_arrow_up():
    assert arrows_up("pipeline.audit", AUDIT, rest="verbs") == []


def test_packages_have_no_arrow_up():
    found = [
        f"{module} imports {target}"
        for module in MODULES
        for target in imports(module)
        if target.partition(".")[0] in PACKAGES[PACKAGES.index(module.partition(".")[0]) + 1 :]
    ]
    assert found == []


@pytest.mark.parametrize("house", ["transforms", "pipeline", "pipeline.audit"])
def test_folders_have_no_circle(house):
    folders = {path.name for path in (ROOT / house.replace(".", "/")).iterdir() if path.is_dir()}
    graph: dict[str, set[str]] = {folder: set() for folder in folders}
    for module in MODULES:
        here = room(module, house)
        if here in folders:
            graph[here] |= {room(target, house) for target in imports(module)} & folders - {here}
    assert_no_circle(graph)


def test_modules_have_no_circle():
    assert_no_circle({module: imports(module, at_import=True) & MODULES.keys() for module in MODULES})


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


def test_libraries_have_their_rooms():
    found = []
    for module in MODULES:
        here = room(module, "transforms")
        for target in imports(module) if here else ():
            parts = [name for name in LIBRARIES if f"{target}.".startswith(f"{name}.")]
            if parts and here not in LIBRARIES[max(parts, key=len)]:
                found.append(f"{module} imports {target}")
    assert found == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("transforms.losses.catalog", ("apache_beam", "tensorflow", "keras", "numba")),
        ("transforms.losses.objective", ("apache_beam", "tensorflow", "keras", "numba")),
        ("transforms.reading.format", ("apache_beam", "tensorflow", "keras")),
        ("pipeline.flags", ("apache_beam", "tensorflow", "keras", "numba")),
        ("pipeline.parse", ("apache_beam", "tensorflow", "keras", "numba")),
        ("transforms.steps", ("tensorflow", "keras", "numba")),
        ("pipeline.graph", ("tensorflow", "keras", "numba")),
        ("transforms.images.decode_task", ("apache_beam", "tensorflow", "numba")),
    ],
)
def test_light_imports(module, unwanted):
    code = f"import sys, {module}; print(*sorted(set({unwanted!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
