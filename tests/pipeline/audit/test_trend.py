"""Runs over time: their order, the table, the drift, and the page."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import audit_runs
from support.audit_runs import Elements, pair

from pipeline.audit.__main__ import main
from pipeline.audit.runs.timeline import SCHEMA

pytestmark = pytest.mark.heavy

NIGHT = 86_400
FAILING = {"id": "x", "generated": b"", "target": b"", "camera": ""}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Three nights of the same data, then a worse one with a failure."""
    directory = tmp_path_factory.mktemp("trend")
    good = audit_runs.score(directory, [pair(n, 0.1) for n in range(12)], "good")
    bad = audit_runs.score(
        directory,
        [*(pair(n, 0.4) for n in range(9)), {"id": "x", "generated": b"", "target": b"", "camera": ""}],
        "bad",
    )
    nights = {f"night{n}": audit_runs.copy_run(good, directory / f"night{n}", started=n * NIGHT) for n in (2, 1, 3)}
    return nights | {"night4": audit_runs.copy_run(bad, directory / "night4", started=4 * NIGHT)}


def trend(tmp_path: Path, *runs: Path) -> tuple[list[dict[str, object]], Elements]:
    assert main(["trend", *map(str, runs), f"--output={tmp_path}"]) == 0
    table = pq.read_table(tmp_path / "trend.parquet")
    assert table.schema.equals(SCHEMA)
    return table.to_pylist(), Elements((tmp_path / "trend.html").read_text(encoding="utf-8"))


class TestTable:
    def test_one_row_per_run_and_loss_in_the_order_of_time(self, runs, tmp_path):
        rows, _ = trend(tmp_path, *runs.values())
        assert [(Path(row["run"]).name, row["loss"]) for row in rows] == [
            (f"night{n}", loss) for n in (1, 2, 3, 4) for loss in ("mae", "ssim", "psnr")
        ]
        assert rows[0]["started"] == datetime.fromtimestamp(NIGHT, UTC)

    def test_numbers(self, runs, tmp_path):
        rows, _ = trend(tmp_path, *runs.values())
        assert {(row["listed"], row["scored"], row["failed"], row["failure_fraction"]) for row in rows} == {
            (12, 12, 0, 0.0),
            (10, 9, 1, 0.1),
        }
        before, after = rows[0], rows[9]
        assert before["min"] <= before["p5"] <= before["median"] <= before["p95"] <= before["max"] < after["min"]
        assert (before["values"], before["nan"], before["not_defined"], before["infinite"]) == (12, 0, 0, 0)

    def test_same_data_drifts_by_nothing_and_worse_data_by_all(self, runs, tmp_path):
        rows, _ = trend(tmp_path, *runs.values())
        for row in rows[:9]:
            assert {value for name, value in row.items() if "_from_" in name} == {0.0}
        assert all(row["ks_from_first"] == row["ks_from_previous"] == 1.0 for row in rows[9:])

    def test_other_settings_have_no_drift(self, runs, tmp_path):
        other = audit_runs.score(tmp_path, [pair(1)], "other", "--losses=mae")
        rows, page = trend(tmp_path, runs["night1"], other)
        assert [row["loss"] for row in rows] == ["mae", "ssim", "psnr", "mae"]
        assert rows[3]["ks_from_first"] is rows[3]["ks_from_previous"] is None
        assert "the settings differ" in page.text
        assert "their losses differ" in page.text

    def test_verdicts(self, runs, tmp_path):
        judged = audit_runs.copy_run(runs["night4"], tmp_path / "judged")
        rules = tmp_path / "rules.yaml"
        rules.write_text("rules: [{rule: failure_fraction, max: 0.05, least_pairs: 1}]")
        assert main(["gate", str(judged), f"--rules={rules}"]) == 3
        rows, page = trend(tmp_path, runs["night1"], judged)
        assert [row["verdict"] for row in rows] == [None] * 3 + ["fail"] * 3
        assert "FAIL" in page.text
        assert "point fail" in page.attributes("class")

    def test_nothing_scored(self, runs, tmp_path):
        nothing = audit_runs.score(tmp_path, [FAILING], "nothing")
        rows, page = trend(tmp_path, runs["night1"], nothing)
        assert (rows[3]["scored"], rows[3]["median"], rows[3]["ks_from_first"]) == (0, None, None)
        assert "2 runs" in page.text


class TestPage:
    def test_charts_and_tables(self, runs, tmp_path):
        _, page = trend(tmp_path, *runs.values())
        # Failures, and the median and the drift of each loss.
        assert len([svg for svg in page.of("svg") if svg.get("class") == "chart"]) == 1 + 2 * 3
        assert len(page.of("circle")) == 4 * 7
        assert "1970-01-02 00:00 UTC" in page.text
        assert "10 %" in page.text

    def test_one_run(self, runs, tmp_path):
        _, page = trend(tmp_path, runs["night1"])
        assert "1 runs" not in page.text
        assert len(page.of("circle")) == 7

    def test_refusals(self, runs, tmp_path, capsys):
        run = str(runs["night1"])
        assert main(["trend", run, run, f"--output={tmp_path}"]) == 2
        assert "given twice" in capsys.readouterr().err
        assert main(["trend", run]) == 2
        assert "--output" in capsys.readouterr().err
