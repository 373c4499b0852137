"""Optimizing chunks: what becomes of each pair, and that the saved images are what the metrics say."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from support.chunks import optimized, scored
from support.pictures import encode, noise, smooth

from transforms.descent.settings import Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.evaluate import Evaluator
from transforms.losses.objective import parse_objective
from transforms.losses.plan import EvaluationError, Plan
from transforms.schema import Chunk, EncodedChunk, encoded_schema
from transforms.scoring.batch import Batching
from transforms.scoring.optimize import Optimizer, load_optimizer

pytestmark = pytest.mark.heavy

PLAN = Plan(("mae", "ssim", "psnr"), parse_objective("mae + fd_l1"))
DESCENT = Descent(max_steps=12)


@pytest.fixture(scope="module")
def optimizer() -> Optimizer:
    return load_optimizer(PLAN)


def blurred(seed: int, height: int, width: int) -> dict[str, bytes]:
    target = smooth(height, width, seed)
    return {"generated": encode(target, "JPEG", quality=10), "target": encode(target)}


def chunk(records: dict[str, dict[str, bytes | None]]) -> EncodedChunk:
    rows = [{"id": id, "source": f"in#{number}", **record} for number, (id, record) in enumerate(records.items())]
    table = pa.Table.from_pylist(rows, schema=encoded_schema())
    return EncodedChunk(Chunk("in", "in", "parquet", 0, len(rows)), table)


MIXED = {
    "a": blurred(0, 32, 24),
    "text": {"generated": b"no image", "target": encode(noise(0, 8, 8))},
    "b": blurred(1, 20, 40),
    "tiny": {"generated": encode(noise(0, 1, 1)), "target": encode(noise(1, 1, 1))},
    "identical": {"generated": encode(smooth(32, 24)), "target": encode(smooth(32, 24))},
    "c": blurred(2, 32, 24),
}


class TestOutcome:
    @pytest.fixture(scope="class")
    def result(self, optimizer):
        return optimized(chunk(MIXED), optimizer, DESCENT)

    def test_every_pair_is_scored_or_failed(self, result):
        assert result.metrics["id"].to_pylist() == ["a", "b", "tiny", "identical", "c"]
        assert [(failure.id, failure.reason) for failure in result.failures] == [("text", "unknown_format")]

    def test_metrics_begin_with_those_of_scoring(self, result, optimizer):
        expected = scored(chunk(MIXED), optimizer.evaluator).metrics
        assert result.metrics.select(expected.column_names) == expected

    def test_saved_is_never_worse(self, result):
        rows = [row for row in result.metrics.to_pylist() if row["id"] != "tiny"]
        assert all(row["objective_of_saved"] <= row["objective_initial"] for row in rows)
        better = [row for row in rows if row["id"] in "abc"]
        assert all(row["objective_of_saved"] < 0.8 * row["objective_initial"] for row in better)
        assert all(row["psnr_optimized"] > row["psnr"] for row in better)

    def test_identical_stops_at_once(self, result):
        row = result.metrics.to_pylist()[3]
        assert (row["steps"], row["objective_initial"], row["objective_of_saved"]) == (0, 0.0, 0.0)

    def test_too_small_is_null_with_a_note(self, result):
        row = result.metrics.to_pylist()[2]
        assert row["mae"] > 0
        assert {row[name] for name in ("objective_initial", "steps", "stop_reason", "mae_optimized")} == {None}
        assert "too_small:objective" in row["notes"]

    def test_saved_images_score_as_the_metrics_say(self, result, optimizer):
        images = {row["id"]: np.asarray(Image.open(BytesIO(row["image"]))) for row in result.optimized.to_pylist()}
        assert list(images) == ["a", "b", "identical", "c"]
        for row in result.metrics.to_pylist():
            if row["id"] in images:
                target = np.asarray(Image.open(BytesIO(MIXED[row["id"]]["target"])))
                again = optimizer.evaluator(images[row["id"]][None], target[None])
                assert row["mae_optimized"] == pytest.approx(again["mae"][0], rel=1e-6)
                assert row["ssim_optimized"] == pytest.approx(again["ssim"][0], rel=1e-6)

    def test_progress_counts_every_pair_once(self, optimizer):
        counted = []
        optimized(chunk(MIXED), optimizer, DESCENT, on_done=counted.append)
        assert sum(counted) == len(MIXED)

    def test_slots_do_not_matter(self, result, optimizer):
        one = optimized(chunk(MIXED), optimizer, DESCENT, batching=Batching(pairs=1))
        assert one.metrics["stop_reason"] == result.metrics["stop_reason"]
        for mine, other in zip(one.optimized["image"], result.optimized["image"], strict=True):
            pixels = [np.asarray(Image.open(BytesIO(image.as_py()))).astype(int) for image in (mine, other)]
            assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_trace_is_a_curve(optimizer):
    descent = Descent(max_steps=6, trace_every=2)
    (row,) = optimized(chunk({"a": MIXED["a"]}), optimizer, descent).metrics.to_pylist()
    assert [point["step"] for point in row["trace"]][:3] == [0, 2, 4]
    assert row["trace"][0]["objective"] == row["objective_initial"]


def test_a_byte_limit_of_the_input_does_not_hold_for_what_is_saved(optimizer):
    limit = len(MIXED["b"]["generated"])
    result = optimized(chunk({"b": MIXED["b"]}), optimizer, DESCENT, DecodePolicy(max_image_bytes=limit))
    assert len(result.optimized["image"][0].as_py()) > limit
    assert result.metrics["mae_optimized"].null_count == 0


@pytest.mark.parametrize("split", ["horizontal", "vertical"])
def test_halves_of_an_image_give_what_two_images_give(optimizer, split):
    records, halves = {"a": MIXED["a"], "text": MIXED["text"], "b": MIXED["b"]}, {}
    for id, record in records.items():
        both = record["generated"]
        if id != "text":
            images = [np.asarray(Image.open(BytesIO(image))) for image in record.values()]
            both = encode(np.concatenate(images, axis=1 if split == "horizontal" else 0))
        halves[id] = {"generated": both, "target": both}
    expected = optimized(chunk(records), optimizer, DESCENT)
    found = optimized(chunk(halves), optimizer, DESCENT, DecodePolicy(split=split))
    assert found.metrics == expected.metrics
    assert found.optimized == expected.optimized
    assert [failure.id for failure in found.failures] == ["text"]


def test_arrays_start_at_8_bits(optimizer):
    def npy(array):
        file = BytesIO()
        np.save(file, array)
        return file.getvalue()

    images = {side: np.asarray(Image.open(BytesIO(image))) for side, image in MIXED["a"].items()}
    off = images["generated"] / np.float32(255) + np.float32(0.001) * (images["generated"] < 255)
    record = {"generated": npy(2 * off - 1), "target": npy(2 * (images["target"] / np.float32(255)) - 1)}
    policy = DecodePolicy(range="-1..1")
    (row,) = optimized(chunk({"a": record}), optimizer, DESCENT, policy).metrics.to_pylist()
    (levels,) = optimized(chunk({"a": MIXED["a"]}), optimizer, DESCENT).metrics.to_pylist()
    assert row["objective_initial"] == pytest.approx(levels["objective_initial"], rel=1e-4)
    assert row["objective"] != pytest.approx(levels["objective"], rel=1e-4)
    assert row["objective_of_saved"] < 0.8 * row["objective_initial"]
    assert row["mae_optimized"] < row["mae"]


def test_large_pairs_are_scored_and_not_optimized(optimizer):
    plan = replace(optimizer.evaluator.plan, max_gradient_pixels=24 * 30)
    limited = Optimizer(Evaluator(plan), optimizer.objective)
    records = {"small": blurred(1, 24, 30), "large": blurred(2, 24, 31)}
    small, large = optimized(chunk(records), limited, DESCENT).metrics.to_pylist()
    assert small["steps"] > 0
    assert (small["notes"], large["notes"]) == ([], ["too_large:optimizing"])
    assert large["objective"] > 0
    assert {large[name] for name in ("objective_initial", "steps", "stop_reason", "mae_optimized")} == {None}


def test_chunk_without_pairs(optimizer):
    result = optimized(chunk({"text": MIXED["text"]}), optimizer, DESCENT)
    assert len(result.metrics) == len(result.optimized) == 0
    assert "objective_of_saved" in result.metrics.column_names


@pytest.mark.parametrize("guilty", [None, "b"])
def test_want_of_memory_halves_the_slots_and_costs_one_pair(optimizer, monkeypatch, guilty):
    from transforms.descent import slots

    whole = slots.optimize_pairs
    records = {id: blurred(seed, 24, 24) for seed, id in enumerate("abcd")}
    position = list(records).index(guilty) if guilty else None

    def starved(starts, objective, descent, slots):
        if slots > 2:
            raise EvaluationError("ResourceExhaustedError: OOM")
        for start in starts:
            if start.key == position:
                raise EvaluationError("ResourceExhaustedError: OOM")
            yield from whole([start], objective, descent, 1)

    monkeypatch.setattr(slots, "optimize_pairs", starved)
    rows = optimized(chunk(records), optimizer, DESCENT).metrics.to_pylist()
    assert [row["id"] for row in rows] == list(records)
    for row in rows:
        assert (row["steps"] is None) == (row["id"] == guilty)
        assert ("optimization_failed" in row["notes"]) == (row["id"] == guilty)
