"""Files of a run that somebody damaged or forged: each command still works, or says in one line what is wrong."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.audited import summarized, write_run
from support.scored import table

from pipeline.cli import main
from pipeline.errors import CRASH, NOTHING_SCORED, OK, USAGE
from pipeline.parse import parse
from transforms.storage.run_files import RunFiles
from transforms.storage.worker_files import Doing, WorkerReport, write_report
from transforms.summary.performance import performance
from transforms.work import Work

WORK = Work(
    pairs=4,
    seconds={"waiting_for_decoding": 3.0, "losses": 1.0},
    processes={"m/1": (1.0, 5.0)},
    slowest={"id-0": 1.5},
    largest={"id-1": 4_000_000},
)
VALUES = {"mae": [0.1, 0.3, 0.2, 0.4]}
KEPT = ["a", "b", None, "a"]
CHUNK = "in-0123abcd-000000000-000000004.parquet"
RULES = "rules: [{rule: failure_fraction, max: 0.5}, {rule: quantile, column: mae, quantile: 0.5, max: 1}]"


def make_run(path: Path) -> Path:
    """A finished run, as the pipeline leaves it."""
    settings = parse(["--input=in", "--output=out", "--losses=mae", "--keep_fields=kept"]).identity()
    file = {"path": "/gone/in", "size": 9, "modified": 1.0, "label": "in", "etag": ""}
    write_run(path, summarized(VALUES, failed=1, kept=KEPT), **settings, input=[file])
    record = json.loads((path / "run.json").read_text())
    told = {"versions": {"numpy": "2"}, "started": 1e9, "performance": performance(WORK, price_per_hour=0.5)}
    (path / "run.json").write_text(json.dumps(record | told))
    write_metrics(path, metrics())
    return path


def metrics() -> pa.Table:
    return table(VALUES, kept=pa.array(KEPT))


def write_metrics(run: Path, content: pa.Table) -> None:
    (run / "metrics").mkdir(exist_ok=True)
    pq.write_table(content, run / "metrics" / CHUNK)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two runs, rules, and the verdict on the first run."""
    root = tmp_path_factory.mktemp("made")
    make_run(root / "other")
    run = make_run(root / "run")
    (root / "rules.yaml").write_text(RULES)
    assert main(["audit", "gate", str(run), f"--rules={root}/rules.yaml", f"--baseline={root}/other"]) == OK
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def commands(root: Path) -> Iterator[Sequence[str]]:
    """The command line of every verb that reads a run."""
    run, other, audit = f"{root}/run", f"{root}/other", "audit"
    yield "status", run
    yield audit, "gate", run, f"--rules={root}/rules.yaml", f"--baseline={other}"
    yield audit, "gate", other, f"--rules={root}/rules.yaml", f"--baseline={run}/summary.json"
    yield audit, "propose", run
    yield audit, "report", run, f"--output={root}/report.html", f"--baseline={other}"
    yield audit, "compare", other, run, f"--output={root}/compare.html"
    yield audit, "trend", other, run, f"--output={root}/trend"
    yield audit, "merge", other, f"{run}/summary.json", f"--output={root}/merged.json"


def check(argv: Sequence[str], capsys) -> int:
    """Run a command, and check that it ends as commands do; return its exit code."""
    code = main(list(argv))
    errors = capsys.readouterr().err
    assert code in (OK, USAGE, NOTHING_SCORED, *([CRASH] if argv[0] == "status" else []))
    if code == USAGE:
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
        assert len(errors) < 1000
    return code


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the parts of parsed JSON lie; of each list, the first item."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def damaged(content: Any, seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """The content with one part gone, or of another type or size; `count` of all such damages, by chance."""
    strange = [None, -1, 10**30, 1e308, "x", "1x1", [], {}, [[]], {"x": [None]}, True, "\ud800"]
    everything = [(at, new) for at in places(content) for new in (*strange, ...)]
    for (*way, last), new in random.Random(seed).sample(everything, count):
        result = copy.deepcopy(content)
        part = result
        for key in way:
            part = part[key]
        if new is ...:
            del part[last]
        else:
            part[last] = new
        yield f"{way} {last} {new}", result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "summary.json", "verdict.json"])
def test_damaged_json(root, name, capsys):
    file = root / "run" / name
    for _, content in damaged(json.loads(file.read_text()), seed=1, count=30):
        file.write_text(json.dumps(content))
        for argv in commands(root):
            check(argv, capsys)


@pytest.mark.parametrize("name", ["run.json", "summary.json", "verdict.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\x00", b"[" * 100_000, b'{"a": NaN}', b'{"a": 1e999}', b"9" * 5000],
    ids=["empty", "cut", "list", "null", "no text", "deep", "nan", "infinite", "long"],
)
def test_what_is_no_object(root, name, content, capsys):
    (root / "run" / name).write_bytes(content)
    readers = {"run.json": "status", "summary.json": "propose", "verdict.json": "trend"}
    codes = [check(argv, capsys) for argv in commands(root) if readers[name] in argv]
    assert codes == [USAGE]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("performance", "slowest", "id-0"), [1]),
        (("performance", "seconds"), None),
        (("performance", "bound_by"), "x"),
        (("performance", "waited_for_decoding"), "x"),
        (("counts", "read"), {}),
        (("identity", "fields"), None),
        (("identity", "fields", "generated"), {}),
        (("identity", "losses", 0), [[1]]),
        (("identity", "images"), 7),
        (("identity", "images", "max_image_pixels"), -1),
        (("identity", "input_format"), "x"),
        (("identity", "input", 0), "x"),
        (("identity", "input", 0, "size"), "x"),
    ],
)
def test_a_forged_record_of_a_run(root, at, value, capsys):
    """Each of these ended a command with a traceback."""
    record = json.loads((root / "run" / "run.json").read_text())
    part = record
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = value
    (root / "run" / "run.json").write_text(json.dumps(record))
    codes = [check(argv, capsys) for argv in commands(root) if {"status", "report"} & {*argv}]
    assert USAGE in codes


@pytest.mark.parametrize("at", ["version", "objective", "fields.keep", "fields.generated", "images", "input"])
def test_a_record_that_lacks_a_part(root, at, capsys):
    record = json.loads((root / "run" / "run.json").read_text())
    *way, last = at.split(".")
    part = record["identity"]
    for key in way:
        part = part[key]
    del part[last]
    (root / "run" / "run.json").write_text(json.dumps(record))
    for argv in commands(root):
        check(argv, capsys)


def test_a_forged_verdict(root, capsys):
    file = root / "run" / "verdict.json"
    verdict = json.loads(file.read_text())
    verdict["results"][0]["outcome"] = "maybe"
    file.write_text(json.dumps(verdict))
    assert main(["audit", "trend", f"{root}/run", f"--output={root}/trend"]) == USAGE
    words = "is not a verdict: results.0.outcome: 'maybe' is not one of ['fail', 'warn', 'skipped', 'pass']; `pairloss"
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("file", ["run.json", "summary.json"])
def test_an_early_record_that_lacks_its_losses(root, file, capsys):
    """They had other names, which are translated."""
    record = json.loads((root / "run" / file).read_text())
    part = record["identity" if file == "run.json" else "computed"]
    del part["losses"], part["objective"]
    part["vgg"] = "keras"
    (root / "run" / file).write_text(json.dumps(record))
    for argv in commands(root):
        check(argv, capsys)


def remove(run: Path) -> None:
    shutil.rmtree(run)


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def become_a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("no run")


def hold_directories(run: Path) -> None:
    for name in ("run.json", "summary.json"):
        (run / name).unlink()
        (run / name).mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove, "{run} is not a run directory: there is no {run}/run.json"),
        (empty, "{run} is not a run directory: there is no {run}/run.json"),
        (become_a_file, "{run} is not a run directory: there is no {run}/run.json"),
        (hold_directories, "cannot read {run}/run.json: Is a directory"),
    ],
)
def test_directories_without_a_run(root, change: Callable[[Path], None], words, capsys):
    """Every verb says what it was given, and what it takes."""
    run = root / "run"
    change(run)
    for argv in commands(root):
        assert main([argument.replace(f"{run}/summary.json", str(run)) for argument in argv]) == USAGE
        assert capsys.readouterr().err == f"error: {words.format(run=run)}; name the --output of a run\n"


Change = Callable[[pa.Table], pa.Table]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.set_column(5, "mae", pa.array(["x"] * 4)), "holds string in its column 'mae'"),
        (lambda t: t.drop_columns("mae"), "0 columns 'mae'"),
        (lambda t: t.append_column("mae", t["mae"]), "2 columns 'mae'"),
        (lambda t: t.drop_columns("id"), "0 columns 'id'"),
        (lambda t: t.set_column(0, "id", pa.array([1, 2, 3, 4])), "holds int64 in its column 'id'"),
        (lambda t: t.set_column(0, "id", pa.array(["a", None, "b", "c"])), "a row without id"),
        (lambda t: t.slice(0, 2), "hold 2 pairs, but its summary 4"),
        (lambda t: t.slice(0, 0), "hold 0 pairs, but its summary 4"),
        (lambda t: pa.table({"a": [1]}), "0 columns 'id'"),
        (lambda t: t.append_column("candidate", pa.array([[1]] * 4)), "cannot read the metrics"),
    ],
)
def test_metrics_that_are_none(root, change: Change, words, capsys):
    write_metrics(root / "run", change(metrics()))
    assert main(["audit", "compare", f"{root}/other", f"{root}/run"]) == USAGE
    errors = capsys.readouterr().err
    assert words in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace_schema_metadata(),
        lambda t: t.set_column(0, "id", t["id"].cast(pa.large_string())),
        lambda t: t.set_column(5, "mae", pa.array([None, 0.1, float("nan"), float("inf")], pa.float64())),
    ],
    ids=["without metadata", "large strings", "null and nan"],
)
def test_metrics_that_can_be_compared(root, change: Change, capsys):
    """Other files beside them are not metrics."""
    write_metrics(root / "run", change(metrics()))
    (root / "run" / "metrics" / ".DS_Store").write_bytes(b"\0")
    assert main(["audit", "compare", f"{root}/other", f"{root}/run"]) == OK
    assert "4 pairs in common" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:50], lambda b: b[:40] + b"\xff" * 60 + b[100:]])
def test_a_damaged_file_of_metrics(root, damage, capsys):
    file = root / "run" / "metrics" / CHUNK
    file.write_bytes(damage(file.read_bytes()))
    assert main(["audit", "compare", f"{root}/other", f"{root}/run"]) == USAGE
    assert "cannot read the metrics" in capsys.readouterr().err


@pytest.mark.heavy
def test_damaged_reports_of_workers(root, capsys):
    """Whoever asks for the status of a run can do without them."""
    run = root / "run"
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running"}))
    report = WorkerReport("f", "", "m/1", 5.0, [Doing("in", "losses", 1.0, 2)], WORK)
    write_report(RunFiles(str(run)), report, "w")
    (file,) = (run / "_temporary").rglob("w.json")
    listed = Path(RunFiles(str(run)).listed)
    for _, content in damaged(report.to_json(), seed=2, count=200):
        file.write_text(json.dumps(content))
        listed.write_text(json.dumps(content.get("work", content)))
        assert check(["status", str(run)], capsys) in (OK, CRASH)
