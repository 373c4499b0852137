"""The candidates of a run, compared by another program as well: pandas and scipy, from the definitions."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats
from support.audited import run_of, summarized

from pipeline.audit.runs.candidates import MOST_CANDIDATES, MOST_NAMED, compare_candidates, has_candidates
from pipeline.audit.runs.difference import TOLERANCE, ComparedRun
from transforms.storage.run_record import RunRecord

# Lower is better, higher is better.
COLUMNS = ("mae", "psnr")


def run(rows: list[tuple[str, str, float | None, float | None]]) -> ComparedRun:
    """A run with these rows: candidate, id, mae and psnr."""
    summary = run_of(summarized({name: [1.0] for name in COLUMNS}))
    names, ids, mae, psnr = zip(*rows, strict=True) if rows else ((),) * 4
    metrics = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "source": pa.array([f"in#{number}" for number in range(len(rows))], pa.string()),
            "candidate": pa.array(names, pa.string()),
            "key": pa.array([f"{id} [{name}]" for name, id in zip(names, ids, strict=True)], pa.string()),
            "mae": pa.array(mae, pa.float32(), from_pandas=False),
            "psnr": pa.array(psnr, pa.float32(), from_pandas=False),
        }
    )
    return ComparedRun(summary, RunRecord(fingerprint="f", identity={}), None, metrics)


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, float | None, float | None]]:
    """Three candidates of 60 targets in any order: some are missing or twice there, some values are, some are equal."""
    random = np.random.default_rng(3)
    found = []
    for name, shift in (("b", 0.02), ("a", 0.0), ("c", -0.01)):
        for number in range(60):
            mae = np.float32(0.3 + 0.001 * number + shift * random.standard_t(2))
            equal = number % 7 == 0
            psnr = math.inf if number == 5 else math.nan if number == 6 else 20.0 if equal else random.normal(25, 3)
            if (name, number) in (("b", 11), ("c", 12), ("c", 13)):
                continue
            found.append((name, f"t{number}", None if number == 17 else float(mae), psnr))
    found += [("a", "t3", 0.1, 1.0), ("b", "t5", None, 30.0)]
    random.shuffle(found)
    return found


def expected(rows, one: str, other: str, column: str) -> dict[str, float]:
    frame = pd.DataFrame(rows, columns=["candidate", "id", *COLUMNS])
    frame[list(COLUMNS)] = frame[list(COLUMNS)].astype(np.float32).astype(np.float64)
    sides = [frame[frame.candidate == name] for name in (one, other)]
    repeated = {id for side in sides for id in side.id[side.id.duplicated()]}
    both = sides[0].merge(sides[1], on="id", suffixes=("_one", "_other"))
    both = both[~both.id.isin(repeated)]
    values = both[["id", f"{column}_one", f"{column}_other"]].dropna().itertuples(index=False)
    gains, wins = {}, []
    for id, old, new in values:
        gain = 0.0 if old == new else (old - new) if column == "mae" else (new - old)
        same = old == new or (np.isfinite(gain) and abs(gain) <= TOLERANCE * max(abs(old), abs(new)))
        gains[id] = gain
        wins.append(0.5 if same else float(gain > 0))
    finite = [gain for gain in gains.values() if math.isfinite(gain)]
    interval = stats.t.interval(0.95, len(finite) - 1, np.mean(finite), stats.sem(finite))
    ordered = sorted(gains, key=lambda id: (gains[id], id))
    return {
        "common": len(both),
        "repeated": len(repeated),
        "pairs": len(gains),
        "finite": len(finite),
        "mean": np.mean(finite),
        "low": interval[0],
        "high": interval[1],
        "wins": np.mean(wins),
        "worst": ordered[0],
    }


def test_agrees_with_another_program(rows):
    found = compare_candidates(run(rows))
    assert found.names == ("a", "b", "c")
    assert [one.names for one in found.differences] == list(combinations("abc", 2))
    for one in found.differences:
        assert [column.column for column in one.columns] == list(COLUMNS)
        for column in one.columns:
            wanted = expected(rows, *one.names, column.column)
            assert (one.common.pairs, one.common.repeated) == (wanted["common"], wanted["repeated"])
            assert (column.pairs, column.mean_gain.pairs) == (wanted["pairs"], wanted["finite"])
            mean = (column.mean_gain.mean, column.mean_gain.low, column.mean_gain.high)
            assert mean == pytest.approx((wanted["mean"], wanted["low"], wanted["high"]), rel=1e-3)
            assert column.wins == pytest.approx(wanted["wins"])
            assert one.common.before["id"][column.most_worse[0]].as_py() == wanted["worst"]


def test_named_pairs_are_the_rows_of_both(rows):
    for one in compare_candidates(run(rows)).differences:
        common = one.common
        assert common.before["id"] == common.after["id"] == common.before["key"]
        named = {position for column in one.columns for position in (*column.most_better, *column.most_worse)}
        assert named == set(range(len(common.before)))
        assert all(len(column.most_better) <= MOST_NAMED // 3 for column in one.columns)
        assert set(common.before["candidate"].to_pylist()) == {one.names[0]}


def test_describes_what_was_not_compared(rows):
    a_b, a_c, _ = compare_candidates(run(rows)).differences
    repeated = "ids left out because they occur more than once"
    assert a_b.describe() == ["57 pairs in common", "1 only a", f"2 {repeated}"]
    assert a_c.describe() == ["57 pairs in common", "2 only a", f"1 {repeated}"]
    one, other = (run([(name, "1", 0.5, psnr), (name, "2", 0.5, 20.0)]) for name, psnr in (("a", math.inf), ("b", 9.0)))
    ((difference),) = compare_candidates(
        replace(one, metrics=pa.concat_tables([one.metrics, other.metrics]))
    ).differences
    assert difference.describe() == ["2 pairs in common", "psnr: 1 infinite left out of the mean"]


@pytest.mark.parametrize("candidates", [[], ["a"], [""]])
def test_one_candidate_has_no_other(candidates):
    assert compare_candidates(run([(name, "1", 0.5, 20.0) for name in candidates])).differences == ()


def test_rows_without_a_candidate_are_one_more():
    found = compare_candidates(run([("", "1", 0.5, 20.0), ("a", "1", 0.25, 20.0)]))
    ((difference),) = found.differences
    assert difference.names == ("(none)", "a")
    assert difference.columns[0].mean_gain.mean == 0.25


def test_candidates_without_a_common_target():
    ((difference),) = compare_candidates(run([("a", "1", 0.5, 20.0), ("b", "2", 0.25, 20.0)])).differences
    column = difference.columns[0]
    assert (column.pairs, column.wins, column.most_worse) == (0, None, ())
    assert math.isnan(column.mean_gain.mean)
    assert difference.describe() == ["0 pairs in common", "1 only a", "1 only b"]


def test_many_candidates():
    names = [f"m{number:02}" for number in range(MOST_CANDIDATES + 2)]
    found = compare_candidates(run([(name, "1", 0.5, 20.0) for name in names]))
    assert len(found.differences) == MOST_CANDIDATES * (MOST_CANDIDATES - 1) // 2
    assert found.notice == "12 candidates: only the first 10 by name are compared."


@pytest.mark.parametrize(
    ("generated", "keep", "expected"),
    [
        (["generated"], [], False),
        (["a", "b"], [], True),
        (["generated"], ["camera", "candidate"], True),
        ("generated", [], False),
    ],
)
def test_has_candidates(generated, keep, expected):
    assert has_candidates({"fields": {"generated": generated, "keep": keep}}) == expected
