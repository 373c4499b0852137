"""Runs compared pair by pair: joined by id, better and worse, and the page."""

import math
from pathlib import Path

import pyarrow as pa
import pytest
from support import audit_runs
from support.audit_runs import Elements, pair

from pipeline.audit.__main__ import main
from pipeline.audit.runs.difference import MOST_CHANGED, column_difference, join
from transforms.columns import Column

INF, NAN = math.inf, math.nan
LOWER, HIGHER = Column("x", "", "", "lower"), Column("x", "", "", "higher")


def table(values: dict[str, float | None] | list[tuple[str, float | None]]) -> pa.Table:
    rows = list(values.items() if isinstance(values, dict) else values)
    return pa.table(
        {
            "id": [id for id, _ in rows],
            "source": [f"in.parquet#{number}" for number in range(len(rows))],
            "key": [id for id, _ in rows],
            "x": pa.array([value for _, value in rows], pa.float32()),
        }
    )


class TestJoin:
    def test_by_id_in_the_order_of_the_first(self):
        joined = join(table({"c": 1, "a": 2, "b": 3}), table({"b": 4, "d": 5, "c": 6}))
        assert joined.before["id"].to_pylist() == joined.after["id"].to_pylist() == ["c", "b"]
        assert joined.before["x"].to_pylist() == [1, 3]
        assert joined.after["x"].to_pylist() == [6, 4]
        assert (joined.only_before, joined.only_after, joined.repeated) == (1, 1, 0)

    @pytest.mark.parametrize("swapped", [False, True])
    def test_repeated_ids_are_left_out_of_both(self, swapped):
        tables = [table([("a", 1), ("a", 2), ("b", 3), ("e", 0)]), table({"a": 1, "b": 2, "c": 3})]
        joined = join(*(reversed(tables) if swapped else tables))
        assert joined.before["id"].to_pylist() == ["b"]
        assert (joined.only_before, joined.only_after, joined.repeated) == (1, 1, 1)

    def test_nothing_in_common(self):
        found = column_difference(join(table({"a": 1}), table({"b": 1})), LOWER)
        assert (found.pairs, found.better, found.worse, found.most_better) == (0, 0, 0, ())
        assert math.isnan(found.median_gain)


class TestColumnDifference:
    @pytest.mark.parametrize(
        ("before", "after", "better", "worse", "pairs"),
        [
            (0.5, 0.4, 1, 0, 1),
            (0.4, 0.5, 0, 1, 1),
            (0.5, 0.5, 0, 0, 1),
            (0.5, 0.50004, 0, 0, 1),
            (0.5, 0.5001, 0, 1, 1),
            (0.0, 1e-30, 0, 1, 1),
            (-0.5, -0.6, 1, 0, 1),
            (INF, 3.0, 1, 0, 1),
            (3.0, INF, 0, 1, 1),
            (INF, INF, 0, 0, 1),
            (-INF, INF, 0, 1, 1),
            (NAN, 0.5, 0, 0, 0),
            (0.5, NAN, 0, 0, 0),
            (None, 0.5, 0, 0, 0),
        ],
    )
    def test_one_pair_either_way_round(self, before, after, better, worse, pairs):
        joined = join(table({"a": before}), table({"a": after}))
        lower = column_difference(joined, LOWER)
        assert (lower.better, lower.worse, lower.same, lower.pairs) == (better, worse, pairs - better - worse, pairs)
        higher = column_difference(joined, HIGHER)
        assert (higher.better, higher.worse) == (worse, better)

    def test_medians_and_furthest(self):
        before = {f"p{number}": 0.5 for number in range(20)}
        after = {f"p{number}": 0.5 + (number - 8) / 100 for number in range(20)}
        found = column_difference(join(table(before), table(after)), HIGHER)
        assert (found.better, found.worse, found.same) == (11, 8, 1)
        assert found.median_before == 0.5
        assert found.median_gain == pytest.approx(0.01, rel=1e-5)
        assert found.most_better == (19, 18, 17, 16, 15)
        assert found.most_worse == (0, 1, 2, 3, 4)

    def test_ties_are_broken_by_id(self):
        ids = [f"p{number}" for number in (7, 3, 9, 1, 8, 2, 6, 4, 5)]
        joined = join(table(dict.fromkeys(ids, 1.0)), table(dict.fromkeys(ids, 0.0)))
        found = column_difference(joined, LOWER)
        assert [ids[position] for position in found.most_better] == [f"p{n}" for n in range(1, MOST_CHANGED + 1)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """The second is better in pair 3, worse in pairs 5 and 6, has no pair 0 and a pair 12 instead."""
    directory = tmp_path_factory.mktemp("compare")
    strengths = dict.fromkeys(range(12), 0.2)
    changed = {n: s for n, s in strengths.items() if n} | {3: 0.0, 5: 0.8, 6: 0.5, 12: 0.2}
    first = audit_runs.score(directory, [pair(n, s) for n, s in strengths.items()], "first")
    second = audit_runs.score(directory, [pair(n, s) for n, s in reversed(changed.items())], "second")
    return first, second


@pytest.mark.heavy
class TestVerb:
    def test_table(self, runs, capsys):
        assert main(["compare", *map(str, runs)]) == 0
        text = capsys.readouterr().out
        row = next(line for line in text.splitlines() if " ssim " in line)
        assert [cell.strip() for cell in row.split("│")[6:12]] == ["45.5 %", "0", "9.09 %", "18.2 %", "72.7 %", "11"]
        assert "11 pairs in common; 1 only before; 1 only after; psnr: 1 infinite left out of the mean" in text

    def test_page(self, runs, tmp_path):
        output = tmp_path / "page.html"
        assert main(["compare", *map(str, runs), f"--output={output}"]) == 0
        page = Elements(output.read_text(encoding="utf-8"))
        groups = {
            attributes["data-title"]: set(attributes["data-groups"].split())
            for attributes in page.of("tr")
            if "data-title" in attributes
        }
        assert groups == {
            "pair/3": {"better-0", "better-1", "better-2"},
            "pair/5": {"worse-0", "worse-1", "worse-2"},
            "pair/6": {"worse-0", "worse-1", "worse-2"},
        }
        assert len(page.of("img")) == 5 * len(groups)
        assert "B: no difference" in page.text
        assert "A: difference ×4" in page.text  # noqa: RUF001
        assert "Infinity" in page.attributes("data-value"), "PSNR of a pair that became identical"

    def test_three_runs(self, runs, tmp_path):
        output = tmp_path / "page.html"
        assert main(["compare", str(runs[0]), str(runs[1]), str(runs[0]), f"--output={output}"]) == 0
        page = Elements(output.read_text(encoding="utf-8"))
        assert {"run-B", "run-C"} <= set(page.attributes("id"))
        assert "No pair changed." in page.text
        assert len(page.attributes("id")) == len(set(page.attributes("id")))

    def test_pictures_that_have_moved_away(self, runs, tmp_path):
        for run in runs:
            name = f"{run.name}.parquet"
            (tmp_path / name).write_bytes((run.parent / name).read_bytes())
            (run.parent / name).unlink()
        try:
            output = tmp_path / "page.html"
            assert main(["compare", *map(str, runs), f"--output={output}"]) == 0
        finally:
            for run in runs:
                name = f"{run.name}.parquet"
                (run.parent / name).write_bytes((tmp_path / name).read_bytes())
        page = Elements(output.read_text(encoding="utf-8"))
        assert not page.of("img")
        assert "first.parquet is no longer there" in page.text
        assert "No pictures" in page.text

    def test_refusals(self, runs, tmp_path, capsys):
        assert main(["compare", str(runs[0])]) == 2
        assert "has no candidates to compare; compare needs a run with several, or two runs" in capsys.readouterr().err
        assert main(["compare", str(runs[0]), str(tmp_path)]) == 2
        assert "not a run directory" in capsys.readouterr().err
        other = audit_runs.score(tmp_path, [pair(1)], "other", "--losses=mae")
        assert main(["compare", str(runs[0]), str(other)]) == 2
        assert "their losses differ" in capsys.readouterr().err

    def test_damaged_metrics(self, runs, tmp_path, capsys):
        damaged = audit_runs.copy_run(runs[0], tmp_path / "damaged")
        file = next((damaged / "metrics").iterdir())
        file.write_bytes(file.read_bytes()[:50])
        assert main(["compare", str(runs[0]), str(damaged)]) == 2
        assert f"cannot read the metrics of {damaged}" in capsys.readouterr().err
