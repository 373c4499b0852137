"""The queries of docs/outputs.md, exactly as they stand there, on files as runs leave them."""

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pytest

from transforms.failure import pair_failure
from transforms.losses.plan import Plan
from transforms.schema import Chunk, ScoredChunk, metrics_schema
from transforms.storage.run_files import RunFiles
from transforms.writing.chunk_files import write_chunk

OUTPUTS = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")

CHUNKS, PAIRS = 3, 40
REASONS = ["truncated", "truncated", "empty_bytes"]


def queries(language: str) -> list[str]:
    """The fenced code in that language of the section that begins with "Query"."""
    (section,) = re.findall(r"^## Query[^\n]*\n(.*?)(?=^## |\Z)", OUTPUTS, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


def only(language: str, having: str) -> str:
    """The one query that has these words."""
    (query,) = (query for query in queries(language) if having in query)
    return query


def write_run(directory: Path, seed: int) -> pandas.DataFrame:
    """Write the chunks of a run, whose last pair has no LPIPS; its metrics."""
    random = np.random.default_rng(seed)
    schema = metrics_schema(Plan(("lpips_vgg", "ssim")).columns, [pa.field("camera", pa.string())])
    parts = []
    for number in range(CHUNKS):
        ids = [f"pair-{number}-{row}" for row in range(PAIRS)]
        values = random.random(PAIRS).astype(np.float32)
        last = number == CHUNKS - 1
        columns = {
            "id": ids,
            "source": [f"in.parquet#{id}" for id in ids],
            "height": [4] * PAIRS,
            "width": [5] * PAIRS,
            "camera": [f"camera {row % 3}" for row in range(PAIRS)],
            "lpips_vgg": pa.array(values, mask=np.arange(PAIRS) == (PAIRS - 1 if last else -1)),
            "ssim": 1 - values,
            "notes": [["too_small:lpips_vgg"] if last and row == PAIRS - 1 else [] for row in range(PAIRS)],
        }
        metrics = pa.table(columns, schema=schema)
        failures = [pair_failure(f"bad-{n}", f"in.parquet#bad-{n}", "decode", r, "") for n, r in enumerate(REASONS)]
        chunk = Chunk(f"in-{number}", "in.parquet", "parquet", number * PAIRS, (number + 1) * PAIRS)
        write_chunk(ScoredChunk(chunk, metrics, tuple(failures) if last else ()), RunFiles(str(directory)))
        parts.append(metrics.to_pandas())
    return pandas.concat(parts, ignore_index=True)


@pytest.fixture
def runs(tmp_path, monkeypatch) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Metrics of today and of yesterday, which lie in `runs` in the current directory."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs" / "today", 1), write_run(tmp_path / "runs" / "yesterday", 2)


@pytest.fixture
def ask() -> Callable[[str], list[tuple]]:
    """Asks DuckDB, which may neither fetch nor load more than it came with."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    return lambda query: connection.sql(query).fetchall()


def test_the_worst(runs, ask):
    today, _ = runs
    worst = today.sort_values("lpips_vgg", ascending=False)[["id", "source", "lpips_vgg"]].head(50)
    assert ask(only("sql", "LIMIT 50")) == list(worst.itertuples(index=False, name=None))


def test_the_worst_in_pandas(runs):
    today, _ = runs
    found = eval(only("python", "nlargest"), {"pandas": pandas})
    assert list(found["id"]) == list(today.sort_values("lpips_vgg", ascending=False)["id"].head(50))
    assert list(found.columns) == list(today.columns)


def test_mean_by_camera(runs, ask):
    today, _ = runs
    found = ask(only("sql", "GROUP BY camera"))
    assert [mean for *_, mean in found] == sorted((mean for *_, mean in found), reverse=True)
    for camera, pairs, mean in found:
        of_camera = today[today["camera"] == camera]
        assert pairs == len(of_camera)
        assert mean == pytest.approx(of_camera["lpips_vgg"].astype(float).mean())
    assert len(found) == 3


def test_worse_than_yesterday(runs, ask):
    today, yesterday = (run.set_index("id")["lpips_vgg"] for run in runs)
    change = (today - yesterday).sort_values(ascending=False)
    change = change[change > 0]
    found = ask(only("sql", "JOIN"))
    assert 0 < len(found) < CHUNKS * PAIRS
    assert found == list(zip(change.index, change, strict=True))


def test_failures_by_reason(runs, ask):
    expected = [("decode", "truncated", 2, "bad-0"), ("decode", "empty_bytes", 1, "bad-2")]
    assert ask(only("sql", "failures")) == expected


def test_no_query_is_left_out(runs):
    assert (len(queries("sql")), len(queries("python"))) == (4, 1)
