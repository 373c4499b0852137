"""Runs of folders with --reuse: each pair whose files have not changed is copied, wherever it stood in the listing."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.run import OK, main
from transforms.reading.input_files import open_input
from transforms.schema import CHUNK_KEY, REUSED_KEY

pytestmark = pytest.mark.heavy

PAIRS = 11
RULES = b"rules:\n  - {rule: pairs, min: 1}\n  - {rule: drift, column: mae, distance: ks, max: 1}\n"
OPTIONS = ("--losses=mae,ssim", "--quiet", "--chunk_pairs=4")


def write_pair(root: Path, number: int, seed: int = 0) -> None:
    shards.write(root / "out" / f"{number:02}.png", encode(noise(seed + number, 16, 20)))
    shards.write(root / "gt" / f"{number:02}.png", encode(smooth(16, 20, number)))


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Pairs of even numbers, of which one is broken and two lack a file."""
    root = tmp_path / "in"
    for number in range(PAIRS):
        write_pair(root, 2 * number)
    shards.write(root / "out/04.png", b"broken")
    (root / "out/10.png").unlink()
    (root / "gt/12.png").unlink()
    return root


def run(inputs: Path, output: Path, *flags: str) -> dict[str, object]:
    """The content of run.json."""
    given = [f"--generated={inputs}/out", f"--target={inputs}/gt", f"--output={output}", *OPTIONS, *flags]
    assert main(given) == OK
    record: dict[str, object] = json.loads((output / "run.json").read_text())
    return record


def content(output: Path) -> dict[str, object]:
    """Everything that a run says of its pairs. The names of chunks hold a hash of the run's directory."""
    found: dict[str, object] = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = re.sub(r"-[0-9a-f]{16}(-\d{9}-)", r"\1", str(path.relative_to(output)))
        if name.startswith("metrics/"):
            table = pq.read_table(path)
            metadata = {k: v for k, v in table.schema.metadata.items() if k not in (CHUNK_KEY, REUSED_KEY)}
            found[name] = table, metadata
        elif name != "run.json":
            found[name] = path.read_bytes().replace(bytes(output), b"RUN")
    return found


def rewrite(inputs: Path) -> None:
    write_pair(inputs, 2, seed=50)


def touch(inputs: Path) -> None:
    os.utime(inputs / "gt/08.png", (1, 1))


def add_first(inputs: Path) -> None:
    """Every later pair moves by a line."""
    write_pair(inputs, 1)


def remove(inputs: Path) -> None:
    for side in ("out", "gt"):
        (inputs / side / "06.png").unlink()


def complete(inputs: Path) -> None:
    write_pair(inputs, 12, seed=1)


def rename(inputs: Path) -> None:
    for side in ("out", "gt"):
        (inputs / side / "00.png").rename(inputs / side / "99.png")


def replace_all(inputs: Path) -> None:
    shutil.rmtree(inputs)
    for number in range(3):
        write_pair(inputs, number, seed=70)


# The change, and how many pairs, or files without a partner, remain.
CHANGES: list[tuple[Callable[[Path], None], int]] = [
    (lambda inputs: None, PAIRS),
    (rewrite, PAIRS - 1),
    (touch, PAIRS - 1),
    (add_first, PAIRS),
    (remove, PAIRS - 1),
    (complete, PAIRS - 1),
    (rename, PAIRS - 1),
    (replace_all, 0),
]


@pytest.mark.parametrize(("change", "same"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_result_is_that_of_a_fresh_run(inputs, tmp_path, change, same):
    shards.write(tmp_path / "rules.yaml", RULES)
    judged = (f"--gate={tmp_path}/rules.yaml", f"--baseline={tmp_path}/old")
    run(inputs, tmp_path / "old")
    change(inputs)
    new = run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}", *judged)
    fresh = run(inputs, tmp_path / "fresh", *judged)
    assert (new["reused"], fresh["reused"]) == (same, 0)
    assert new["counts"] == fresh["counts"]
    assert content(tmp_path / "new") == content(tmp_path / "fresh")


def test_only_changed_images_are_read(inputs, tmp_path, monkeypatch):
    run(inputs, tmp_path / "old")
    rewrite(inputs)
    add_first(inputs)
    opened = []

    def noted(path, *version):
        opened.append(path)
        return open_input(path, *version)

    monkeypatch.setattr("transforms.reading.input_files.open_input", noted)
    run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}")
    images = {path for path in opened if path.endswith(".png")}
    assert images == {f"{inputs}/{side}/{number}.png" for side in ("out", "gt") for number in ("01", "02")}


def test_images_that_could_not_be_read_are_read_again(inputs, tmp_path, monkeypatch):
    def out_of_reach(path, *version):
        if path.endswith("/08.png"):
            raise OSError("the store is down")
        return open_input(path, *version)

    with monkeypatch.context() as patch:
        patch.setattr("transforms.reading.input_files.open_input", out_of_reach)
        assert run(inputs, tmp_path / "old")["counts"]["failed"] == 4
    assert run(inputs, tmp_path / "new", f"--reuse={tmp_path / 'old'}")["reused"] == PAIRS - 1
    run(inputs, tmp_path / "fresh")
    assert content(tmp_path / "new") == content(tmp_path / "fresh")


@pytest.mark.parametrize("moved", ["moved", "resumed", "damaged", "lost chunk", "lost listing", "changed listing"])
def test_whatever_has_become_of_the_earlier_run(inputs, tmp_path, moved):
    old = tmp_path / "old"
    run(inputs, old)
    first, *_ = sorted((old / "metrics").iterdir())
    (listing,) = (old / "listing").iterdir()
    reused = PAIRS - 1
    if moved == "moved":
        old = old.rename(tmp_path / "elsewhere")
    elif moved == "resumed":
        old = tmp_path / "second"
        run(inputs, old, f"--reuse={tmp_path / 'old'}")
        (old / "_SUCCESS").unlink()
        next(iter(old.glob("metrics/*"))).unlink()
        run(inputs, old)
    elif moved == "damaged":
        first.write_bytes(first.read_bytes()[:-10])
        reused = PAIRS - 4
    elif moved == "lost chunk":
        first.unlink()
        reused = PAIRS - 4
    elif moved == "lost listing":
        listing.unlink()
        reused = 0
    else:
        listing.write_bytes(listing.read_bytes().replace(b"/08.png", b"/09.png"))
        reused = 0
    rewrite(inputs)
    assert run(inputs, tmp_path / "new", f"--reuse={old}")["reused"] == reused
    run(inputs, tmp_path / "fresh")
    assert content(tmp_path / "new") == content(tmp_path / "fresh")


def test_failures_are_tried_again(inputs, tmp_path):
    """A limit that refuses a picture is raised, while other pairs change."""
    shards.write(inputs / "out/06.png", encode(noise(0, 40, 40)))
    shards.write(inputs / "gt/06.png", encode(smooth(40, 40)))
    old = run(inputs, tmp_path / "old", "--max_image_bytes=1500")
    add_first(inputs)
    flags = (f"--reuse={tmp_path / 'old'}", "--retry_failures=too_many_bytes")
    new, fresh = run(inputs, tmp_path / "new", *flags), run(inputs, tmp_path / "fresh")
    assert (old["counts"]["failed"], new["counts"]["failed"], new["reused"]) == (4, 3, PAIRS - 1)
    assert new["counts"] == fresh["counts"]
    assert content(tmp_path / "new") == content(tmp_path / "fresh")


def test_candidates_with_masks_from_a_zip_file(inputs, tmp_path):
    """The members of a zip file are as old as the file."""
    for number in range(0, 2 * PAIRS, 2):
        shards.write(inputs / "b" / f"{number:02}.png", encode(noise(90 + number, 16, 20)))
        shards.write(inputs / "mask" / f"{number:02}.png", encode(noise(3, 16, 20)))
    with zipfile.ZipFile(inputs / "gt.zip", "w") as archive:
        for path in sorted((inputs / "gt").iterdir()):
            archive.write(path, path.name)
    sides = [f"--generated=a={inputs}/out", f"--generated=b={inputs}/b", f"--target={inputs}/gt.zip"]
    flags = [*sides, f"--mask={inputs}/mask", *OPTIONS]
    assert main([*flags, f"--output={tmp_path}/old"]) == OK
    shards.write(inputs / "b/02.png", encode(noise(1, 16, 20)))
    os.utime(inputs / "mask/06.png", (1, 1))
    assert main([*flags, f"--output={tmp_path}/new", f"--reuse={tmp_path}/old"]) == OK
    assert main([*flags, f"--output={tmp_path}/fresh"]) == OK
    assert content(tmp_path / "new") == content(tmp_path / "fresh")
    counts = json.loads((tmp_path / "new/run.json").read_text())
    assert counts["counts"]["listed"] - counts["reused"] == 3
    os.utime(inputs / "gt.zip", (1, 1))
    assert main([*flags, f"--output={tmp_path}/third", f"--reuse={tmp_path}/new"]) == OK
    # A file without a partner names no member of the zip file.
    assert json.loads((tmp_path / "third/run.json").read_text())["reused"] <= 3
