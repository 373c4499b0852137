"""Summaries: exact counts, notes, sizes and failures, and the same in whatever order and by whatever way they merge."""

import json
import random
from dataclasses import replace

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scored import INF, NAN, chunk_of, columns_named, summary_of, table

from transforms.failure import pair_failure
from transforms.schema import ScoredChunk
from transforms.steps import SummarizeChunks
from transforms.storage.json_files import to_json
from transforms.summary.scored_pairs import MOST_SIZES, MOST_SLICES, OTHER
from transforms.summary.summary import FAILURE_EXAMPLES, Summary

FLOAT32 = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, 2.0, INF, -INF, NAN]))


# A note's sizes are parameters, of which there may be any number.
NOTES = st.lists(st.sampled_from(["generated:gray", "target:cropped_from_7x9", "target:cropped_from_70x9"]), max_size=2)
SIDE = st.integers(1, 9)


def through_json(summary: Summary) -> Summary:
    return Summary.from_json(json.loads(to_json(summary.to_json())))


@pytest.fixture(scope="class")
def monkeypatch_bounds():
    """Bounds that a few rows reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.summary.scored_pairs.MOST_SIZES", 4)
        patch.setattr("transforms.summary.scored_pairs.MOST_SLICES", 3)
        patch.setattr("transforms.summary.summary.FAILURE_EXAMPLES", 2)
        patch.setattr("transforms.summary.extreme_pairs.EXTREME_PAIRS", 5)
        yield


class TestMerging:
    @pytest.mark.heavy
    @given(
        rows=st.lists(st.tuples(FLOAT32, st.sampled_from([None, "", "a", "b", "c", "d"]), SIDE, NOTES), max_size=60),
        seed=st.integers(0, 2**32),
        data=st.data(),
    )
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_any_chunks_in_any_order_and_grouping(self, monkeypatch_bounds, rows, seed, data):
        """The same text, to the last digit, although sums are of floats and worst pairs are cut to a few."""
        values = [value for value, *_ in rows]
        columns = ("mae", "psnr")
        metrics = table(
            {"mae": values, "psnr": values[::-1]},
            kept=pa.array([kept for _, kept, _, _ in rows], pa.string()),
            sizes=[(side, 3) for *_, side, _ in rows],
            notes=[notes for *_, notes in rows],
        )
        failures = [pair_failure(f"f{n}", f"in#f{n}", "decode", "ab"[n % 2], "") for n in range(len(rows) // 2)]
        cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=6).map(sorted))
        edges = list(zip([0, *cuts], [*cuts, len(values)], strict=True))
        parts = [chunk_of(metrics.slice(a, b - a), failures[a:b]) for a, b in edges]
        combine = SummarizeChunks(columns_named(*columns), "kept")
        whole = combine.add_input(combine.create_accumulator(), chunk_of(metrics, failures))
        whole.chunks = len(parts)
        shuffle = random.Random(seed)
        pending = [combine.add_input(combine.create_accumulator(), part) for part in parts]
        while len(pending) > 1:
            shuffle.shuffle(pending)
            number = shuffle.randint(1, len(pending))
            pending = [combine.merge_accumulators(pending[:number]), *map(through_json, pending[number:])]
        assert to_json(pending[0].to_json()) == to_json(whole.to_json())
        assert through_json(pending[0]) == pending[0] == whole

    def test_an_accumulator_merged_from_stays_as_it_was(self):
        combine = SummarizeChunks(columns_named("mae"))
        one, two = (summary_of(chunk_of(table({"mae": [value]}, start))) for start, value in enumerate((1.0, 2.0)))
        before = to_json(one.to_json())
        combine.merge_accumulators([one, two])
        assert to_json(one.to_json()) == before

    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_on_an_engine(self, count):
        failure = pair_failure("x", "in#9", "decode", "corrupt", "")
        chunks = [chunk_of(table({"mae": [n, None]}, 2 * n), (failure,), name=f"c{n}") for n in range(count)]
        expected = to_json(summary_of(*chunks).to_json())

        def check(found):
            assert [to_json(summary.to_json()) for summary in found] == [expected]

        with beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline:
            # Typed, for an empty list tells no type.
            source = pipeline | beam.Create(chunks).with_output_types(ScoredChunk)
            assert_that(source | beam.CombineGlobally(SummarizeChunks(columns_named("mae"))), check)


class TestSummary:
    def failures(self, *reasons: str):
        return [pair_failure(f"f{n}", f"in#f{n}", "decode", reason, "") for n, reason in enumerate(reasons)]

    def unreadable(self, path: str, reason: str = "unreadable_file"):
        return [replace(pair_failure(path, path, "read", reason, ""), scope="file")]

    def test_counts(self):
        summary = summary_of(
            chunk_of(table({"mae": [1.0, 2.0]}), self.failures("corrupt", "truncated", "corrupt")),
            chunk_of(table({"mae": [3.0]}, 2)),
            chunk_of(table({"mae": []}), self.failures("corrupt")),
        )
        counts = {"listed": 7, "read": 7, "scored": 3, "failed": 4, "unread": 0, "files_failed": 0}
        assert summary.counts() == counts
        found = summary.to_json()
        assert found["failures"] == {"corrupt": 3, "truncated": 1}
        assert found["losses"]["mae"]["count"] == 3
        assert summary.chunks == 3

    def test_unreadable_chunks_and_files(self):
        summary = summary_of(
            chunk_of(table({"mae": [1.0]})),
            # Two chunks of one file are gone, and the listing of another stopped after 5 records.
            chunk_of(table({"mae": []}), self.unreadable("gone.parquet"), pairs=256),
            chunk_of(table({"mae": []}), self.unreadable("gone.parquet"), pairs=100),
            chunk_of(table({"mae": []}), self.unreadable("cut.tfrecord"), pairs=0),
        )
        counts = {"listed": 357, "read": 1, "scored": 1, "failed": 0, "unread": 356, "files_failed": 2}
        assert summary.counts() == counts
        found = summary.to_json()
        assert found["failed_files"] == {"cut.tfrecord": "unreadable_file", "gone.parquet": "unreadable_file"}
        assert found["failures"] == {}

    @pytest.mark.parametrize("order", [1, -1])
    def test_one_file_with_two_reasons(self, order):
        chunks = [chunk_of(table({"mae": []}), self.unreadable("x", reason), pairs=1) for reason in ("b", "a")]
        assert summary_of(*chunks[::order]).failed_files == {"x": "a"}

    def test_lost_pairs_show(self):
        """Neither scored nor failed: the run must notice, so they are not counted as unread."""
        summary = summary_of(chunk_of(table({"mae": [1.0]}), pairs=3))
        assert (summary.read, summary.scored + summary.failed) == (3, 1)

    def test_precisions_are_those_of_chunks_with_pairs(self):
        tables = [table({"mae": values}, precision=p) for values, p in (([1.0], "bfloat16"), ([], "x"), ([1.0], "a"))]
        assert summary_of(*map(chunk_of, tables)).to_json()["precision"] == ["a", "bfloat16"]

    def test_columns_keep_their_order(self):
        columns = ("sobel_l1", "mae", "objective")
        chunk = chunk_of(table({name: [1.0] for name in columns}))
        assert tuple(summary_of(chunk, columns=columns).to_json()["losses"]) == columns

    def test_empty(self):
        summary = summary_of()
        assert set(summary.counts().values()) == {0}
        assert json.loads(to_json(summary.to_json()))["losses"]["mae"]["worst"] == []

    @given(values=st.lists(FLOAT32, max_size=20))
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_always_strict_json(self, values):
        text = json.dumps(summary_of(chunk_of(table({"mae": values}))).to_json(), allow_nan=False)
        assert json.loads(text)["counts"]["scored"] == len(values)

    def test_notes_by_kind_and_sizes(self):
        notes = [["generated:gray", "target:cropped_from_7x9"], ["target:cropped_from_123x45"], []]
        metrics = table({"mae": [1.0] * 6}, sizes=[(50, 40), (5, 4), (300, 200)], notes=notes)
        found = summary_of(chunk_of(metrics)).to_json()
        assert found["notes"] == {"generated:gray": 2, "target:cropped_from_WxH": 4}
        assert list(found["sizes"].items()) == [("5x4", 2), ("50x40", 2), ("300x200", 2)]

    def test_sizes_are_bounded(self):
        sizes = [(side, 10) for side in range(1, MOST_SIZES + 4)]
        found = summary_of(chunk_of(table({"mae": [1.0] * len(sizes)}, sizes=sizes))).to_json()["sizes"]
        assert found == {f"{side}x10": 1 for side in range(1, MOST_SIZES + 1)} | {OTHER: 3}

    def test_examples_of_failures(self):
        failures = [pair_failure(f"f{n}", f"in#{n}", "decode", "corrupt", f"m{n}") for n in (7, 3, 1, 5, 8, 2, 6)]
        chunks = [chunk_of(table({"mae": []}), failures[a:b]) for a, b in ((3, 7), (0, 3))]
        examples = summary_of(*chunks).to_json()["failure_examples"]["corrupt"]
        assert len(examples) == FAILURE_EXAMPLES
        assert examples[:2] == [{"id": f"f{n}", "source": f"in#{n}", "message": f"m{n}"} for n in (1, 2)]


class TestSlices:
    @pytest.mark.parametrize(
        ("kept", "expected"),
        [
            (pa.array(["b", "a", None, "a"]), {None: [2.0], "a": [1.0, 3.0], "b": [0.0]}),
            (pa.array([2, 10, 2, None]), {None: [3.0], "10": [1.0], "2": [0.0, 2.0]}),
            (pa.array([True, False, True, True]), {"False": [1.0], "True": [0.0, 2.0, 3.0]}),
            (pa.array(["", "other", "", "null"]), {"": [0.0, 2.0], "null": [3.0], "other": [1.0]}),
            (pa.array([0, 0, 1, 1], pa.timestamp("s", "UTC")), {f"1970-01-01 00:00:0{n}Z": [2 * n, 2 * n + 1] for n in (0, 1)}),  # noqa: E501
        ],
        ids=["text", "numbers", "booleans", "names that mean something here", "times"],
    )  # fmt: skip
    def test_by_value(self, kept, expected):
        slices = summary_of(chunk_of(table({"mae": [0.0, 1.0, 2.0, 3.0]}, kept=kept)), slice_by="kept").slices
        assert {value: pairs.count for value, pairs in slices.values.items()} == {
            v: len(e) for v, e in expected.items()
        }
        assert {value: pairs.columns["mae"].mean for value, pairs in slices.values.items()} == {
            value: sum(values) / len(values) for value, values in expected.items()
        }
        assert slices.other.count == 0
        assert [entry["value"] for entry in slices.to_json()["values"]] == list(expected)

    def test_bounded(self):
        values = [f"v{n:03}" for n in range(MOST_SLICES + 7)]
        random.Random(0).shuffle(values)
        chunks = [chunk_of(table({"mae": [1.0]}, n, kept=pa.array([value]))) for n, value in enumerate(values)]
        slices = summary_of(*chunks, slice_by="kept").slices
        assert sorted(slices.values) == sorted(values)[:MOST_SLICES]
        assert slices.other.count == slices.other.columns["mae"].finite == 7

    @pytest.mark.parametrize("fields", [("a", "b"), ("a", ""), ("", "b")])
    def test_of_different_fields_do_not_add_up(self, fields):
        one, other = (Summary.empty(columns_named("mae"), by) for by in fields)
        with pytest.raises(ValueError, match="cannot be merged"):
            one.merge(other)


class TestFromJson:
    @pytest.mark.parametrize(
        ("damage", "error"),
        [
            (lambda data: data.pop("losses"), KeyError),
            (lambda data: data.pop("columns"), KeyError),
            (lambda data: data["columns"].clear(), KeyError),
            (lambda data: data["counts"].pop("scored"), KeyError),
            (lambda data: data["losses"]["mae"].pop("histogram"), KeyError),
            (lambda data: data["losses"]["mae"]["histogram"]["positive"]["counts"].pop(), ValueError),
            (lambda data: data["losses"]["mae"].update(count=7), ValueError),
            (lambda data: data["losses"]["mae"].update(null=7), ValueError),
            (lambda data: data["losses"]["mae"].update(sum="1/3"), ValueError),
            (lambda data: data.update(losses=3), AttributeError),
        ],
        ids=range(10),
    )
    def test_damage_shows(self, damage, error):
        data = json.loads(to_json(summary_of(chunk_of(table({"mae": [1.0, 2.0]}))).to_json()))
        damage(data)
        with pytest.raises(error):
            Summary.from_json(data)


def test_duplicate_ids():
    """Also between chunks, and in summaries that were read back."""
    once, again = chunk_of(table({"mae": [1.0, 2.0]})), chunk_of(table({"mae": [3.0, 4.0, 5.0]}))
    summary = summary_of(once, columns=("mae",))
    assert summary.duplicate_ids == 0
    summary.merge(summary_of(again, columns=("mae",)))
    assert summary.duplicate_ids == 2
    assert through_json(summary).duplicate_ids == summary.to_json()["duplicate_ids"] == 2
