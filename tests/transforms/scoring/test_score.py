"""Scoring a chunk: every pair has a row or a failure, in file order, the same whatever the batches."""

import datetime
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest
from support.as_gpu import AS_GPU
from support.chunks import scored as score_encoded
from support.pictures import encode, noise, smooth

from transforms.failure import pair_failure
from transforms.images.decode import DecodePolicy
from transforms.losses.devices import CPU, Device
from transforms.losses.objective import parse_objective
from transforms.losses.plan import EvaluationError, Plan
from transforms.losses.protocol import Protocol
from transforms.schema import (
    BACKEND_KEY,
    DEVICE_KEY,
    PRECISION_KEY,
    Chunk,
    EncodedChunk,
    ScoredChunk,
    encoded_schema,
    metrics_schema,
)
from transforms.scoring.batch import Batching
from transforms.scoring.score import SCORE_REASONS, load_evaluator, score_chunk, start_chunk

PLAN = Plan(("sobel_l1", "ssim"))
COLUMNS = [column.name for column in PLAN.columns]
MEAN = Plan(("mae",))
SIZES = [(24, 32), (32, 24), (20, 20)]
IMAGES = ("generated", "target")


@pytest.fixture(scope="module")
def evaluator():
    return load_evaluator(PLAN)


def pair(number: int, height: int, width: int, **others: object) -> dict[str, object]:
    target = smooth(height, width, shift=number)
    generated = noise(number, height, width)
    return {
        "id": f"pair-{number}",
        "source": f"in.parquet#{number}",
        "generated": encode(generated),
        "target": encode(target),
        **others,
    }


def chunk_of(rows: list[dict[str, object]], keep=(), failures=()) -> EncodedChunk:
    table = pa.Table.from_pylist(rows, schema=encoded_schema(keep))
    return EncodedChunk(Chunk("in-0", "in.parquet", "parquet", 0, len(rows) + len(failures)), table, tuple(failures))


def mixed(count: int = 9) -> list[dict[str, object]]:
    """Pairs of three sizes in turn."""
    return [pair(number, *SIZES[number % len(SIZES)]) for number in range(count)]


def ids(scored: ScoredChunk) -> list[str]:
    return scored.metrics["id"].to_pylist()


@dataclass
class Card:
    """An evaluator on a GPU that computes a batch until another thread waits for it, or no other thread works."""

    threads: int
    plan: Plan = MEAN
    precision: str = "float32"
    backend: str = "tensorflow"
    device: Device = field(default_factory=lambda: Device("GPU:of-test", 10**9))
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: int = 0
    computing: int = 0
    most_at_once: int = 0

    def score(self, chunk):
        scored = score_encoded(chunk, self, batching=Batching(pairs=2))
        with self.changed:
            self.threads -= 1
            self.changed.notify_all()
        return scored

    def __call__(self, generated, target):
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()
        with self.device.turn(), self.changed:
            self.waiting -= 1
            self.computing += 1
            self.most_at_once = max(self.most_at_once, self.computing)
            next_is_ready = self.changed.wait_for(lambda: self.waiting or self.threads == 1, timeout=60)
            self.computing -= 1
        assert next_is_ready
        return {"mae": np.zeros(len(generated), np.float32)}


def test_threads_keep_a_card_busy():
    """While it computes a batch, other threads read, decode and stack the next one; it holds one batch at a time."""
    card, chunk = Card(threads=3), chunk_of([pair(number, 20, 20) for number in range(8)])
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(card.score, [chunk] * 3))
    assert [len(scored.metrics) for scored in results] == [8, 8, 8]
    assert (card.threads, card.most_at_once) == (0, 1)


class TestGoodPairs:
    def test_rows_come_in_file_order(self, evaluator):
        rows = mixed()
        scored = score_encoded(chunk_of(rows), evaluator)
        assert scored.metrics.schema.equals(metrics_schema(PLAN.columns))
        assert scored.failures == ()
        for name in ("id", "source"):
            assert scored.metrics[name].to_pylist() == [row[name] for row in rows]
        sizes = [SIZES[number % len(SIZES)] for number in range(9)]
        assert list(zip(*(scored.metrics[name].to_pylist() for name in ("height", "width")), strict=True)) == sizes
        assert scored.metrics["notes"].to_pylist() == [[]] * 9

    def test_each_row_holds_the_losses_of_its_own_pair(self, evaluator):
        together = score_encoded(chunk_of(mixed()), evaluator).metrics
        for number, row in enumerate(mixed()):
            alone = score_encoded(chunk_of([row]), evaluator).metrics
            for column in COLUMNS:
                assert together[column][number].as_py() == pytest.approx(alone[column][0].as_py(), rel=1e-5)

    @pytest.mark.parametrize(
        "batching",
        [
            Batching(pairs=1),
            Batching(pairs=2),
            Batching(pairs=100),
            Batching(pixels=2 * 24 * 32),
            Batching(pending_bytes=1),
            Batching(pairs=3, pending_bytes=20_000),
        ],
        ids=repr,
    )
    def test_rows_do_not_depend_on_the_batching(self, evaluator, batching):
        usual, other = (score_encoded(chunk_of(mixed()), evaluator, batching=b).metrics for b in (Batching(), batching))
        assert other.drop_columns(COLUMNS) == usual.drop_columns(COLUMNS)
        for column in COLUMNS:
            np.testing.assert_allclose(other[column], usual[column], rtol=1e-5)

    def test_the_same_chunk_again_is_the_same_bit_for_bit(self, evaluator):
        first, second = (score_encoded(chunk_of(mixed()), evaluator).metrics for _ in range(2))
        assert first.equals(second, check_metadata=True)

    def test_precision_and_backend_are_kept_with_the_table(self, evaluator):
        metadata = score_encoded(chunk_of(mixed(1)), evaluator).metrics.schema.metadata
        assert metadata == {PRECISION_KEY: b"float32", BACKEND_KEY: b"tensorflow", DEVICE_KEY: b"CPU"}

    @pytest.mark.parametrize(
        ("dtype", "values"),
        [
            (pa.string(), ["b", None, "ünï[red]"]),
            (pa.bool_(), [True, None, False]),
            (pa.int8(), [-128, None, 127]),
            (pa.uint64(), [2**64 - 1, None, 0]),
            (pa.float16(), [np.float16(0.5), None, np.float16("inf")]),
            (pa.float32(), [0.5, None, -1.0]),
            (pa.float64(), [0.1, None, float("inf")]),
            (pa.date32(), [datetime.date(2024, 2, 29), None, datetime.date(1, 1, 1)]),
            (pa.timestamp("us", "UTC"), [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), None, None]),
            (pa.timestamp("ns"), [1, None, 2**62]),
        ],
        ids=str,
    )
    def test_kept_fields_are_copied(self, evaluator, dtype, values):
        keep = (pa.field("kept", dtype),)
        rows = [pair(number, 20, 20, kept=value) for number, value in enumerate(values)]
        # Its row goes, and takes its kept value along.
        rows[1]["generated"] = b"no image"
        scored = score_encoded(chunk_of(rows, keep), evaluator)
        assert scored.metrics.schema.equals(metrics_schema(PLAN.columns, keep))
        assert scored.metrics["kept"].combine_chunks().equals(pa.array([values[0], values[2]], dtype))

    def test_notes_of_both_images(self, evaluator):
        row = pair(0, 20, 20)
        row["target"] = encode(np.zeros((20, 20), np.uint8))
        scored = score_encoded(chunk_of([row]), evaluator)
        assert scored.metrics["notes"].to_pylist() == [["target:gray", "target:constant"]]

    def test_slices_and_several_arrow_chunks(self, evaluator):
        """Tables as Parquet readers make them: not of one piece, and not from the beginning."""
        whole = chunk_of(mixed(7))
        pieces = pa.concat_tables([whole.pairs.slice(2, 2), whole.pairs.slice(4, 3)])
        scored = score_encoded(replace(whole, chunk=replace(whole.chunk, start=2), pairs=pieces), evaluator)
        assert ids(scored) == [f"pair-{number}" for number in range(2, 7)]


class TestUndefined:
    """Pictures too small for a loss: null, never NaN, and a note."""

    @pytest.mark.parametrize(
        ("size", "undefined"),
        [((11, 40), ()), ((40, 10), ("ssim",)), ((2, 2), ("ssim",)), ((1, 40), ("sobel_l1", "ssim"))],
    )
    def test_columns(self, evaluator, size, undefined):
        scored = score_encoded(chunk_of([pair(0, *size), pair(1, 24, 24)]), evaluator)
        assert scored.failures == ()
        for column in COLUMNS:
            assert scored.metrics[column].is_null().to_pylist() == [column in undefined, False]
        assert scored.metrics["notes"].to_pylist() == [[f"too_small:{column}" for column in undefined], []]

    def test_objective_and_its_gradient_go_with_their_losses(self):
        plan = Plan(("mae",), parse_objective("mae + ssim"), pixel_gradient=True)
        scored = score_encoded(chunk_of([pair(0, 10, 10), pair(1, 24, 24)]), load_evaluator(plan))
        small, large = scored.metrics.to_pylist()
        undefined = ("objective", "pixel_grad_l2", "pixel_grad_linf")
        assert small["mae"] > 0
        assert [small[column] for column in undefined] == [None] * 3
        assert small["notes"] == [f"too_small:{column}" for column in undefined]
        assert all(np.isfinite(large[column]) for column in undefined)

    def test_infinity_is_a_value(self):
        row = pair(0, 8, 8)
        row["generated"] = row["target"]
        scored = score_encoded(chunk_of([row]), load_evaluator(Plan(("psnr",))))
        assert scored.metrics["psnr"].to_pylist() == [float("inf")]


BAD_IMAGES = {
    "null_image": None,
    "empty_bytes": b"",
    "unknown_format": b"no image at all",
    "truncated": encode(noise(0, 24, 24))[:-100],
    "too_many_pixels": encode(np.zeros((200, 201, 3), np.uint8)),
    "too_many_bytes": encode(noise(0, 100, 100)),
}
STRICT = DecodePolicy(max_image_pixels=200 * 200, max_image_bytes=20_000)


class TestFailures:
    @pytest.mark.parametrize("image", IMAGES)
    @pytest.mark.parametrize("reason", BAD_IMAGES)
    @pytest.mark.parametrize("position", [0, 2, 4], ids=["first", "middle", "last"])
    def test_one_bad_image_costs_one_pair(self, evaluator, image, reason, position):
        rows, data = mixed(5), BAD_IMAGES[reason]
        rows[position][image] = data
        scored = score_encoded(chunk_of(rows), evaluator, STRICT)
        (failure,) = scored.failures
        assert ids(scored) == [f"pair-{number}" for number in range(5) if number != position]
        assert (failure.id, failure.source) == (rows[position]["id"], rows[position]["source"])
        assert (failure.stage, failure.reason, failure.scope) == ("decode", reason, "pair")
        assert failure.message
        assert failure.bytes == len(data or b"")
        assert failure.sha256 == ("" if data is None else hashlib.sha256(data).hexdigest())

    def test_two_sizes(self, evaluator):
        row = pair(0, 24, 24) | {"target": encode(smooth(24, 30))}
        (failure,) = score_encoded(chunk_of([row]), evaluator).failures
        assert (failure.reason, failure.sha256, failure.bytes) == ("size_mismatch", "", 0)
        scored = score_encoded(chunk_of([row]), evaluator, DecodePolicy(size_mismatch="crop"))
        assert scored.metrics.select(["height", "width"]).to_pylist() == [{"height": 24, "width": 24}]

    def test_earlier_failures_come_first(self, evaluator):
        earlier = [pair_failure(f"r{n}", f"in.parquet#{n + 3}", "read", "missing_field", "no target") for n in range(2)]
        rows = [row | {"generated": b"x"} for row in mixed(2)] + [pair(2, 20, 20)]
        scored = score_encoded(chunk_of(rows, failures=earlier), evaluator)
        assert [failure.id for failure in scored.failures] == ["r0", "r1", "pair-0", "pair-1"]
        assert len(scored.metrics) + len(scored.failures) == scored.chunk.pairs

    @pytest.mark.parametrize("rows", [[], [row | {"target": None} for row in mixed(3)]], ids=["empty", "all bad"])
    def test_nothing_to_score(self, evaluator, rows):
        keep = (pa.field("label", pa.int64()),)
        scored = score_encoded(chunk_of(rows, keep), evaluator)
        assert len(scored.metrics) == 0
        assert scored.metrics.schema.equals(metrics_schema(PLAN.columns, keep))
        assert len(scored.failures) == len(rows)


@dataclass
class Fussy:
    """Computes the mean of the generated image; fails as real networks do.

    Attributes:
        most: pairs that fit into memory.
        hated: value of a pair's first generated pixel that makes any batch fail.
        batches: sizes of the batches computed.
    """

    most: int = 1000
    hated: int = -1
    batches: list[int] = field(default_factory=list)
    plan: Plan = MEAN
    precision: str = "float32"
    backend: str = "tensorflow"
    device: Device = CPU

    def __call__(self, generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        if len(generated) > self.most:
            raise EvaluationError("out of memory")
        if (generated[:, 0, 0, 0] == self.hated).any():
            raise EvaluationError("a value\nI hate " + "x" * 2000)
        self.batches.append(len(generated))
        return {"mae": generated.mean(axis=(1, 2, 3), dtype=np.float32)}


def plain(values: list[int]) -> EncodedChunk:
    """Pairs of a single colour each."""
    return chunk_of(
        [pair(n, 4, 4) | {"generated": encode(np.full((4, 4, 3), value, np.uint8))} for n, value in enumerate(values)]
    )


class TestEvaluationErrors:
    def test_a_pair_that_fails_on_a_gpu_is_scored_on_the_cpu(self):
        """Which rows there are must not depend on the card."""
        scored = score_encoded(plain([1, 200, 3]), Fussy(hated=200, device=AS_GPU))
        assert scored.failures == ()
        assert ["scored_on_cpu" in notes for notes in scored.metrics["notes"].to_pylist()] == [False, True, False]

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
    def test_only_the_pair_to_blame_fails(self, count):
        for guilty in range(count):
            values = [200 if number == guilty else number for number in range(count)]
            scored = score_encoded(plain(values), Fussy(hated=200))
            assert [failure.id for failure in scored.failures] == [f"pair-{guilty}"]
            assert ids(scored) == [f"pair-{number}" for number in range(count) if number != guilty]
            assert scored.metrics["mae"].to_pylist() == [number for number in range(count) if number != guilty]

    def test_its_failure(self):
        (failure,) = score_encoded(plain([200]), Fussy(hated=200)).failures
        assert (failure.stage, failure.reason, failure.sha256) == ("score", "evaluation_failed", "")
        assert failure.reason in SCORE_REASONS
        assert failure.message.startswith("a value I hate xxx")
        assert len(failure.message) <= 500

    @pytest.mark.parametrize("most", [1, 2, 3])
    def test_batches_are_halved_until_they_fit(self, most):
        evaluator = Fussy(most)
        scored = score_encoded(plain(list(range(13))), evaluator)
        assert scored.failures == ()
        assert scored.metrics["mae"].to_pylist() == list(range(13))
        assert max(evaluator.batches) <= most

    def test_failures_of_all_kinds_come_in_file_order(self):
        chunk = plain([1, 200, 3, 200])
        bad = chunk.pairs.set_column(2, "generated", pa.array([None, *chunk.pairs["generated"].to_pylist()[1:]]))
        bad = bad.set_column(3, "target", pa.array([*bad["target"].to_pylist()[:2], b"x", bad["target"][3].as_py()]))
        scored = score_encoded(replace(chunk, pairs=bad), Fussy(hated=200))
        reasons = ["null_image", "evaluation_failed", "unknown_format", "evaluation_failed"]
        assert [failure.reason for failure in scored.failures] == reasons
        assert [failure.id for failure in scored.failures] == [f"pair-{number}" for number in range(4)]

    def test_not_even_one_pair_fits(self):
        scored = score_encoded(plain(list(range(5))), Fussy(most=0))
        assert [failure.id for failure in scored.failures] == [f"pair-{number}" for number in range(5)]
        assert len(scored.metrics) == 0

    def test_a_defect_is_not_swallowed(self):
        class Broken(Fussy):
            def __call__(self, generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
                raise TypeError("a defect")

        with pytest.raises(TypeError, match="a defect"):
            score_encoded(plain([1]), Broken())

    def test_nan_is_a_value_and_null_is_none(self):
        class Odd(Fussy):
            def __call__(self, generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
                return {"mae": np.full(len(generated), np.nan, np.float32)}

        column = score_encoded(plain([1]), Odd()).metrics["mae"]
        assert column.null_count == 0
        assert np.isnan(column[0].as_py())


class TestCandidates:
    def test_of_one_target_share_a_batch_and_keep_their_rows(self):
        """Candidates of two targets in turn, batches of three pairs."""
        targets = [encode(smooth(16, 16, shift)) for shift in (0, 9)]
        rows = [pair(n, 16, 16) | {"target": targets[n % 2]} for n in range(6)]
        batches: list[list[int]] = []

        class Recording(Fussy):
            def __call__(self, generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
                batches.append([int(image[0, 0, 0]) for image in target])
                return super().__call__(generated, target)

        recording = Recording(plan=Plan(("mae", "lpips_vgg")))
        scored = score_encoded(chunk_of(rows), recording, batching=Batching(pairs=3))
        assert [len(set(batch)) for batch in batches] == [1, 1]
        assert ids(scored) == [row["id"] for row in rows]
        expected = score_encoded(chunk_of(rows), Fussy())
        assert scored.metrics["mae"].equals(expected.metrics["mae"])


def test_decoding_goes_on_by_itself(monkeypatch):
    """Until one pair has come out, few are begun; then as many as may wait, while the chunk before is scored."""
    from transforms.scoring import decode_ahead

    decoded = threading.Semaphore(0)

    def counting(pairs, policy, sandbox, decode=decode_ahead.decode_pairs):
        outcomes = decode(pairs, policy, sandbox)
        decoded.release(len(pairs))
        return outcomes

    monkeypatch.setattr(decode_ahead, "decode_pairs", counting)
    rows = mixed(24)
    started = start_chunk(chunk_of(rows), MEAN, batching=Batching(pairs=8))
    # Two batches.
    assert all(decoded.acquire(timeout=60) for _ in range(16))
    scored = score_chunk(started, Fussy())
    assert ids(scored) == [row["id"] for row in rows]


class TestLargePictures:
    @pytest.mark.parametrize("most", [24 * 24, 1])
    def test_are_decoded_when_it_is_their_turn(self, monkeypatch, most):
        """One at a time: together they might not fit into memory. The rows are the same."""
        from transforms.scoring import decode_ahead

        rows = mixed(7)
        expected = score_encoded(chunk_of(rows), Fussy())
        limits: list[tuple[int, int]] = []

        def recording(pairs, policy, sandbox, decode=decode_ahead.decode_pairs):
            limits.append((policy.max_image_pixels, len(pairs)))
            return decode(pairs, policy, sandbox)

        monkeypatch.setattr(decode_ahead, "decode_pairs", recording)
        monkeypatch.setattr(decode_ahead, "_PIXELS_AHEAD", most)
        found = score_encoded(chunk_of(rows), Fussy())
        assert found.metrics.equals(expected.metrics)
        large = [pairs for limit, pairs in limits if limit > most]
        assert large
        assert set(large) == {1}


class TestProgress:
    @pytest.mark.parametrize("batching", [Batching(), Batching(pairs=2)], ids=["one batch", "small batches"])
    def test_told_of_every_pair(self, batching):
        chunk = plain([1, 2, 200, 4, 5])
        bad = chunk.pairs.set_column(2, "generated", pa.array([b"x", *chunk.pairs["generated"].to_pylist()[1:]]))
        earlier = (pair_failure("r", "in.parquet#5", "read", "missing_field", ""),)
        told: list[int] = []
        score_encoded(
            EncodedChunk(replace(chunk.chunk, stop=6), bad, earlier),
            Fussy(hated=200),
            batching=batching,
            on_done=told.append,
        )
        assert sum(told) == 6

    def test_a_chunk_that_cannot_be_read_is_done_too(self):
        unreadable = replace(pair_failure("f", "f", "read", "unreadable_file", ""), scope="file")
        chunk = EncodedChunk(Chunk("f-0", "f", "parquet", 0, 256), encoded_schema().empty_table(), (unreadable,))
        told: list[int] = []
        scored = score_encoded(chunk, Fussy(), on_done=told.append)
        assert sum(told) == 256
        assert scored.failures == (unreadable,)


@pytest.mark.parametrize(
    ("batching", "ahead", "batch"),
    [
        pytest.param(Batching(pairs=4), 8, 4, id="two batches"),
        pytest.param(Batching(pairs=1), 2, 1, id="two pairs"),
        # A pair has 96 bytes.
        pytest.param(Batching(pairs=20, pending_bytes=4 * 96), 4, 5, id="few bytes"),
    ],
)
def test_few_pairs_are_decoded_before_they_are_needed(monkeypatch, batching, ahead, batch):
    """Memory holds the pairs of a few batches, not those of a chunk."""
    from transforms.scoring import decode_ahead

    decoded, evaluated, most = 0, 0, 0
    lock, real = threading.Lock(), decode_ahead.decode_pairs

    def counting(pairs, *args):
        nonlocal decoded, most
        with lock:
            decoded += len(pairs)
            most = max(most, decoded - evaluated)
        return real(pairs, *args)

    class Slow(Fussy):
        def __call__(self, generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
            nonlocal evaluated
            columns = super().__call__(generated, target)
            with lock:
                evaluated += len(generated)
            return columns

    monkeypatch.setattr(decode_ahead, "decode_pairs", counting)
    scored = score_encoded(plain(list(range(60))), Slow(), batching=batching)
    assert len(scored.metrics) == 60
    # Those ahead, the one that is waited for, and the batch that fills.
    assert most <= ahead + 1 + batch


class TestMasks:
    PLAN = Plan(("mae", "ssim", "ms_ssim"), parse_objective("mae"), protocol=Protocol(crop_border=1, masked=True))

    @pytest.fixture(scope="class")
    def masked(self):
        return load_evaluator(self.PLAN)

    def rows(self, *masks):
        """Pairs of one target, each with a mask."""
        rows = [pair(1, 24, 32, mask=None if mask is None else encode(mask)) for mask in masks]
        return [{**row, "id": f"pair-{number}", "source": f"in#{number}"} for number, row in enumerate(rows)]

    def chunk(self, rows):
        table = pa.Table.from_pylist(rows, schema=encoded_schema(masked=True))
        return EncodedChunk(Chunk("in-0", "in.parquet", "parquet", 0, len(rows)), table)

    def test_a_row_of_its_own_for_every_mask(self, masked):
        half, corner = np.zeros((2, 24, 32), np.uint8)
        half[:, 16:], corner[1:3, 1:3] = 255, 255
        scored = score_encoded(self.chunk(self.rows(half, np.full_like(half, 255), corner)), masked)
        assert scored.failures == ()
        metrics = scored.metrics.to_pydict()
        assert metrics["mask_coverage"] == pytest.approx([15 / 30, 1, 4 / (22 * 30)])
        images = (np.float64(pixels)[1:-1, 1:-1] / 255 for pixels in (noise(1, 24, 32), smooth(24, 32, shift=1)))
        difference = np.abs(np.subtract(*images))
        expected = [difference[:, 15:].mean(), difference.mean(), difference[:2, :2].mean()]
        assert metrics["mae"] == metrics["objective"] == pytest.approx(expected, rel=1e-6)
        assert [value is None for value in metrics["ssim"]] == [False, False, True]
        assert metrics["ms_ssim"] == [None] * 3
        assert metrics["notes"] == [
            ["unmaskable:ms_ssim"],
            ["unmaskable:ms_ssim"],
            ["outside_mask:ssim", "unmaskable:ms_ssim"],
        ]
        assert scored.metrics.schema.names == [
            *("id", "source", "height", "width", "mae", "ssim", "ms_ssim", "objective", "mask_coverage", "notes")
        ]

    def test_one_failure_for_every_bad_mask(self, masked):
        ones, border = np.ones((24, 32), np.uint8), np.full((24, 32), 255, np.uint8)
        border[1:-1, 1:-1] = 0
        good = np.full((24, 32), 255, np.uint8)
        scored = score_encoded(self.chunk(self.rows(ones, border, good, None, good[:, 1:])), masked)
        assert [failure.reason for failure in scored.failures] == [
            *("empty_mask", "empty_mask", "null_image", "mask_mismatch")
        ]
        assert [failure.stage for failure in scored.failures] == ["score", "score", "decode", "decode"]
        assert "stored as 0 and 255" in scored.failures[0].message
        assert scored.failures[3].message == "The mask: It is 31x24, but its target is 32x24."
        assert scored.failures[3].bytes > 0
        assert scored.metrics["id"].to_pylist() == ["pair-2"]
