"""The Beam steps do what the functions they wrap do, count it, and touch no other run's directory."""

import json
import threading
from collections import Counter
from dataclasses import replace
from itertools import chain

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from support import chunks as in_one_call
from support import shards
from support.pictures import encode, noise
from support.scored import columns_named

from transforms.descent.settings import Descent
from transforms.failure import Failure
from transforms.losses.networks.weights_file import WeightsError
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.reading.list_chunks import CHUNK_BYTES, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import PRECISION_KEY, Chunk, EncodedChunk, Fields, ScoredChunk, metrics_schema
from transforms.scoring.optimize import load_optimizer
from transforms.scoring.score import load_evaluator
from transforms.steps import (
    DONE,
    TO_DO,
    CountListed,
    FinishRun,
    ListChunks,
    OptimizePairs,
    ReadPairs,
    ScorePairs,
    SplitDone,
    WriteChunk,
    scoring,
)
from transforms.storage.run_files import RunFiles
from transforms.summary.summary import Summary
from transforms.worker import counters
from transforms.writing.chunk_files import read_chunk, write_chunk

pytestmark = pytest.mark.heavy

FIELDS = Fields(keep=("label",))
KEEP = (pa.field("label", pa.int64()),)
PLAN = Plan(("mae",), parse_objective("mae"))
COUNT = 11
TAKEN = "another run, with other settings or inputs, has taken"


def pipeline() -> beam.Pipeline:
    return beam.Pipeline(FnApiRunner(), PipelineOptions([]))


@pytest.fixture
def files(tmp_path):
    """A good file of each kind, a damaged one and one that is not readable at all."""
    rows = shards.rows(COUNT)
    frames = [shards.frame(shards.example(row)) for row in rows]
    return [
        shards.write_parquet(tmp_path / "a.parquet", pa.Table.from_pylist(rows)),
        shards.write_tfrecord(tmp_path / "b.tfrecord.gz", rows),
        shards.write(tmp_path / "c.tfrecord", b"".join([*frames[:3], b"\xff" * 40, *frames[3:], b"tail"])),
        shards.write(tmp_path / "d.parquet", b"bad"),
    ]


def listed(files):
    return [series for file in files for series in list_chunks(file, "auto", FIELDS, 4)]


def claimed(output, fingerprint="f") -> RunFiles:
    """The files of a run whose directory its launcher has claimed."""
    run = RunFiles(str(output))
    run.write_whole(run.config, json.dumps({"fingerprint": fingerprint, "identity": {"losses": ["mae"]}}).encode())
    return run


def scored(number: int) -> ScoredChunk:
    schema = metrics_schema(columns_named("mae")).with_metadata({PRECISION_KEY: b"float32"})
    row = {"id": "a", "source": f"in#{3 * number}", "height": 4, "width": 5, "mae": 0.5, "notes": []}
    chunk = Chunk(f"in-{number}", "in", "parquet", 3 * number, 3 * number + 2)
    failure = Failure("b", f"in#{3 * number + 1}", "decode", "truncated", "ends early")
    return ScoredChunk(chunk, pa.Table.from_pylist([row], schema=schema), (failure,))


def same_metrics(found: ScoredChunk, expected: ScoredChunk) -> bool:
    metadata = found.metrics.schema.metadata == expected.metrics.schema.metadata
    same = (found.chunk, found.failures) == (expected.chunk, expected.failures)
    return same and metadata and found.metrics.equals(expected.metrics)


class TestListChunks:
    def test_lists_as_the_function_does(self, files):
        expected = listed(files)
        with pipeline() as p:
            assert_that(p | beam.Create(files) | ListChunks(FIELDS, chunk_pairs=4), equal_to(expected))
        metrics = p.result.metrics().query(MetricsFilter().with_namespace("pairloss"))["counters"]
        counted = {counter.key.metric.name: counter.committed for counter in metrics}
        assert counted["pairs_listed"] == 3 * COUNT + 2
        assert counted["chunks_listed"] == sum(map(len, expected))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"input_format": "xml"}, "xml"), ({"chunk_pairs": 0}, "0"), ({"chunk_bytes": -1}, "-1")],
    )
    def test_refuses_bad_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            ListChunks(FIELDS, **settings)

    def test_default_chunk_is_within_beams_element_limit(self):
        assert CHUNK_BYTES < 512 << 20


@pytest.mark.parametrize("some", [slice(None), slice(3, None)], ids=["all", "nothing to read"])
def test_count_listed(files, tmp_path, some):
    run = claimed(tmp_path / "run")
    total = sum(chunk.pairs for chunk in chain(*listed(files[some])))
    with pipeline() as p:
        assert_that(p | beam.Create(listed(files[some])) | CountListed(run.output, "f"), equal_to([total]))
    assert json.loads((tmp_path / "run/_temporary/listed.json").read_text()) == {"pairs": total}


def test_for_one_worker_a_file_is_one_series(files):
    """Several series would each read a row group from its beginning, and open the file anew."""
    with pipeline() as p:
        found = p | beam.Create(files) | ListChunks(FIELDS, 2, whole_files=True)
        whole = [tuple(chain(*list_chunks(file, "auto", FIELDS, 2))) for file in files]
        assert max(map(len, whole)) > 1
        assert_that(found, equal_to(whole))


def test_read_pairs(files):
    def as_values(encoded: EncodedChunk):
        return encoded.chunk.name, encoded.pairs.to_pylist(), encoded.failures

    encoded = [chunk for series in listed(files) for chunk in read_series(series, FIELDS, KEEP)]
    counters.reset_in_process()
    with pipeline() as p:
        read = p | beam.Create(listed(files)) | ReadPairs(FIELDS, KEEP)
        assert_that(read | beam.Map(as_values), equal_to(list(map(as_values, encoded))))
    counted = counters.counted_in_process()
    assert counted["pairs_read"] == 3 * COUNT + 2
    assert counted["chunks_read"] == len(encoded)
    assert counted["chunks_unreadable"] == 1
    assert counted["bytes_read"] == sum(chunk.pairs.nbytes for chunk in encoded)


def encoded_pairs() -> EncodedChunk:
    images = [encode(noise(seed, 16, 18)) for seed in range(4)]
    rows = [{"id": "a", "generated": images[0], "target": images[1]}, {"id": "b", "generated": b"", "target": b""}]
    table = pa.Table.from_pylist([{"source": f"in#{n}", **row} for n, row in enumerate(rows)])
    return EncodedChunk(Chunk("in-0", "in", "parquet", 0, 2), table.select(["id", "source", "generated", "target"]))


@pytest.mark.parametrize("optimize", [False, True])
def test_score_and_optimize_as_the_functions_do(optimize):
    descent = Descent(max_steps=2)
    if optimize:
        step, expected = (
            OptimizePairs(PLAN, descent=descent),
            in_one_call.optimized(encoded_pairs(), load_optimizer(PLAN), descent),
        )
    else:
        step, expected = ScorePairs(PLAN), in_one_call.scored(encoded_pairs(), load_evaluator(PLAN))

    def check(found):
        (one,) = found
        assert same_metrics(one, expected)
        assert one.optimized == expected.optimized

    counters.reset_in_process()
    with pipeline() as p:
        assert_that(p | beam.Create([encoded_pairs()]) | step, check)
    assert counters.counted_in_process()["pairs_done"] == 2


ARRIVED = threading.Event()


def arrive(chunk: EncodedChunk) -> EncodedChunk:
    ARRIVED.set()
    return chunk


def arrive_and_break(chunk: EncodedChunk) -> EncodedChunk:
    ARRIVED.set()
    raise ValueError("the disk is full")


def load_when_one_has_arrived(*arguments):
    assert ARRIVED.wait(60), "no chunk comes before the model is loaded"
    return load_evaluator(*arguments)


def load_nothing(*arguments):
    raise WeightsError("the file is damaged")


def left_behind() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "load_model"))]


class TestModel:
    def test_the_first_chunk_comes_while_it_is_loaded(self, monkeypatch):
        ARRIVED.clear()
        monkeypatch.setattr(scoring, "load_evaluator", load_when_one_has_arrived)
        with pipeline() as p:
            scored = p | beam.Create([encoded_pairs()]) | beam.Map(arrive) | ScorePairs(PLAN)
            assert_that(scored | beam.Map(lambda one: len(one.metrics)), equal_to([1]))

    def test_one_that_cannot_be_loaded_ends_the_job(self, monkeypatch):
        monkeypatch.setattr(scoring, "load_evaluator", load_nothing)
        with pytest.raises(Exception, match="the file is damaged"), pipeline() as p:
            _ = p | beam.Create([encoded_pairs()]) | ScorePairs(PLAN)
        assert not left_behind()

    def test_a_job_that_ends_for_another_reason_leaves_none_in_the_making(self, monkeypatch):
        """While TensorFlow is imported, the reason would not be seen on standard error."""
        ARRIVED.clear()
        monkeypatch.setattr(scoring, "load_evaluator", load_when_one_has_arrived)
        with pytest.raises(Exception, match="the disk is full"), pipeline() as p:
            _ = p | beam.Create([encoded_pairs()]) | beam.Map(arrive_and_break) | ScorePairs(PLAN)
        assert not left_behind()


class TestFiles:
    def test_write_then_split_then_read(self, tmp_path):
        run, chunks = claimed(tmp_path), [scored(number) for number in range(4)]
        counters.reset_in_process()
        with pipeline() as p:
            _ = p | beam.Create(chunks[:3]) | WriteChunk(run.output, "f")
        counted = counters.counted_in_process()
        assert counted == Counter(chunks_written=3, pairs_scored=3, pairs_failed=3)
        series = [(chunks[0].chunk, chunks[3].chunk, chunks[1].chunk), (chunks[2].chunk,)]
        with pipeline() as p:
            split = p | beam.Create(series) | SplitDone(run.output, "f")
            assert_that(split[TO_DO], equal_to([(chunks[3].chunk,)]), "to do")
            names = split[DONE] | beam.Map(lambda one: one.chunk.name)
            assert_that(names, equal_to([one.chunk.name for one in chunks[:3]]), "done")
        assert all(same_metrics(read_chunk(one.chunk, run, "f"), one) for one in chunks[:3])

    def test_optimized_images_end_with_the_writing(self, tmp_path):
        run = claimed(tmp_path)
        images = pa.table({"id": ["a"], "source": ["in#0"], "image": [b"png"]})

        def check(found):
            assert [one.optimized for one in found] == [None]

        with pipeline() as p:
            chunk = replace(scored(0), optimized=images)
            assert_that(p | beam.Create([chunk]) | WriteChunk(run.output, "f", "csv", "png"), check)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            *("_temporary", "failures", "metrics", "metrics_csv", "optimized", "run.json")
        ]


def test_finish(tmp_path):
    run = claimed(tmp_path)
    summary = Summary.of_chunk(scored(0), columns_named("mae"))
    write_chunk(scored(0), run)
    with pipeline() as p:
        _ = p | beam.Create([summary]) | FinishRun(run.output, "f")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("_SUCCESS", "failures", "metrics", "run.json", "summary.json")
    ]


@pytest.mark.parametrize(
    ("element", "step"),
    [
        pytest.param((scored(0).chunk,), lambda output: SplitDone(output, "f"), id="split"),
        pytest.param(scored(0), lambda output: WriteChunk(output, "f"), id="write"),
        pytest.param(Summary.empty([]), lambda output: FinishRun(output, "f"), id="finish"),
    ],
)
def test_a_job_whose_directory_was_taken_leaves_it_alone(tmp_path, element, step):
    claimed(tmp_path, "another")
    with pytest.raises(Exception, match=TAKEN), pipeline() as p:
        _ = p | beam.Create([element]) | step(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]
