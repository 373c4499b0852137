"""The whole program with real pictures: its outputs, the local engines, and bad input."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import shards
from support.chunks import scored
from support.pictures import encode, noise, smooth

from pipeline.run import NOTHING_SCORED, OK, USAGE, main
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import Fields
from transforms.scoring.score import load_evaluator

pytestmark = pytest.mark.heavy

SIZES = [(40, 56), (64, 64), (33, 70)]
EMBEDDED = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]


def good_pairs(count: int, start: int = 0) -> list[dict[str, object]]:
    """Pairs of three alternating sizes, degraded by JPEG."""
    pairs = []
    for number in range(start, start + count):
        height, width = SIZES[number % len(SIZES)]
        target = smooth(height, width, shift=number)
        generated = encode(target, "JPEG", quality=20 + number % 70)
        pairs.append(
            {"id": f"pair/{number}", "generated": generated, "target": encode(target), "label": f"l{number % 3}"}
        )
    return pairs


def write_shard(path: Path, pairs: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        shards.write_parquet(path, pa.Table.from_pylist(pairs), row_group_size=9)
    else:
        shards.write_tfrecord(path, pairs)
    return path


def score(output: Path, *arguments: object) -> pa.Table:
    """Run the program, assert that it succeeds, and return its metrics sorted by source."""
    assert main([f"--output={output}", "--quiet", *map(str, arguments)]) == OK
    return metrics(output)


def metrics(output: Path) -> pa.Table:
    return pq.read_table(output / "metrics").sort_by("source")


def failures(output: Path) -> list[dict[str, object]]:
    lines = [line for path in sorted((output / "failures").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    return write_shard(tmp_path_factory.mktemp("input") / "pairs.parquet", good_pairs(20))


class TestOutputs:
    def test_directory_holds_what_the_readme_says(self, parquet, tmp_path):
        output = tmp_path / "run"
        table = score(output, f"--input={parquet}", "--preset=edges", "--pixel_gradient", "--keep_fields=label")
        assert sorted(path.name for path in output.iterdir()) == ["_SUCCESS", "metrics", "run.json", "summary.json"]
        assert table.column_names == [
            *("id", "source", "height", "width", "label"),
            *("sobel_l1", "objective", "pixel_grad_l2", "pixel_grad_linf", "notes"),
        ]
        assert set(table["id"].to_pylist()) == {f"pair/{number}" for number in range(20)}
        assert table["label"].to_pylist() == [f"l{source_number(s) % 3}" for s in table["source"].to_pylist()]
        run = read(output / "run.json")
        assert run["status"] == "finished"
        assert run["counts"] == {"listed": 20, "read": 20, "scored": 20, "failed": 0, "unread": 0, "files_failed": 0}
        assert {"fingerprint", "identity", "versions", "seconds", "precision"} <= run.keys()
        performance = run["performance"]
        assert (performance["pairs"], performance["workers"]) == (20, 1)
        assert performance["bytes_read"] > parquet.stat().st_size / 2
        # These losses need no network. Pairs that were decoded while TensorFlow was imported are not waited for.
        worked = {stage for stage, seconds in performance["seconds"].items() if seconds} | {"waiting_for_decoding"}
        waits, beside = {"waiting_for_reading", "waiting_for_decoding"}, {"reading", "decoding"}
        assert worked == {"listing", "losses", "writing", "other", *waits, *beside}
        assert 0 < sum(performance["seconds"][stage] for stage in worked - beside) <= run["seconds"]
        assert performance["worker_seconds"] <= run["seconds"]
        assert "cost_per_million_pairs" not in performance
        assert set(performance["largest"]) <= set(table["id"].to_pylist())
        summary = read(output / "summary.json")["losses"]["sobel_l1"]
        values = table["sobel_l1"].to_numpy().astype(np.float64)
        assert (summary["count"], summary["min"], summary["max"]) == (20, values.min(), values.max())
        assert summary["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert summary["quantiles"]["0.5"] == pytest.approx(np.quantile(values, 0.5, method="inverted_cdf"), rel=5e-3)
        assert summary["worst"][0]["sobel_l1"] == values.max()

    @pytest.mark.parametrize("name", ["pairs.tfrecord", "pairs.tfrecord.gz"])
    def test_formats_give_the_same_numbers(self, parquet, tmp_path, name):
        other = write_shard(tmp_path / name, good_pairs(20))
        options = ["--losses=sobel_l1,ssim,gmsd", "--chunk_pairs=6"]
        tables = [
            score(tmp_path / str(number), f"--input={path}", *options).sort_by("id").drop_columns("source")
            for number, path in enumerate((parquet, other))
        ]
        # Batches differ, because Parquet's chunks end where row groups end.
        for column in ("sobel_l1", "ssim", "gmsd"):
            np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=1e-5)
        assert tables[0].select(["id", "height", "width"]) == tables[1].select(["id", "height", "width"])

    def test_every_loss_at_once(self, lpips_weights, tmp_path):
        target = smooth(176, 164)
        pair = {"id": "a", "generated": encode(noise(0, 176, 164)), "target": encode(target)}
        path = write_shard(tmp_path / "one.parquet", [pair])
        names = (
            *("mae", "mse", "psnr", "charbonnier", "sobel_l1", "sobel_l2", "fd_l1", "fd_l2", "gdl", "multiscale_fd"),
            *("tv", "gmsd", "ssim", "ms_ssim", "lpips_vgg", "vgg_mse", "style"),
        )
        row = score(tmp_path / "run", f"--input={path}", f"--losses={','.join(names)}").to_pylist()[0]
        assert all(np.isfinite(row[name]) for name in names)
        assert read(tmp_path / "run" / "run.json")["identity"]["weights"]["vgg16_lpips"] == lpips_weights.sha256

    def test_objective_is_the_weighted_sum(self, parquet, tmp_path):
        row = score(tmp_path / "run", f"--input={parquet}", "--losses=mae,ssim", "--objective=2*mae + 1 - 0.5*ssim")
        expected = 2 * row["mae"].to_numpy() + 1 - 0.5 * row["ssim"].to_numpy()
        np.testing.assert_allclose(row["objective"], expected, rtol=1e-6)

    def test_small_images_get_null_and_a_note(self, tmp_path):
        pair = {"id": "tiny", "generated": encode(noise(0, 5, 9)), "target": encode(noise(1, 5, 9))}
        path = write_shard(tmp_path / "tiny.parquet", [pair])
        row = score(tmp_path / "run", f"--input={path}", "--losses=mae,ssim", "--objective=mae - ssim").to_pylist()[0]
        assert row["mae"] > 0
        assert (row["ssim"], row["objective"]) == (None, None)
        assert row["notes"] == ["too_small:ssim", "too_small:objective"]

    def test_inputs_of_one_base_name(self, tmp_path):
        paths = [
            write_shard(tmp_path / name / "pairs.parquet", good_pairs(3, start)) for name, start in (("a", 0), ("b", 3))
        ]
        table = score(tmp_path / "run", "--losses=mae", f"--input={paths[0]},{paths[1]}")
        assert len(set(table["id"].to_pylist())) == 6
        assert len(list((tmp_path / "run" / "metrics").iterdir())) == 2

    def test_identical_and_upside_down(self, lpips_weights, tmp_path):
        picture = smooth(48, 48)
        pairs = [
            {"id": "identical", "generated": encode(picture), "target": encode(picture)},
            {"id": "upside-down", "generated": encode(picture[::-1].copy()), "target": encode(picture)},
        ]
        path = write_shard(tmp_path / "two.parquet", pairs)
        table = score(
            tmp_path / "run",
            f"--input={path}",
            "--losses=mae,sobel_l1,fd_l1,gdl,gmsd,lpips_vgg,vgg_mse,style,ssim,psnr",
            "--objective=lpips_vgg + fd_l1",
            "--pixel_gradient",
        )
        identical, upside_down = table.to_pylist()
        lower = ("mae", "sobel_l1", "fd_l1", "gdl", "gmsd", "lpips_vgg", "vgg_mse", "style", "objective")
        assert {identical[name] for name in (*lower, "pixel_grad_l2", "pixel_grad_linf")} == {0.0}
        assert (identical["ssim"], identical["psnr"]) == (1.0, np.inf)
        assert all(upside_down[name] > 0 for name in (*lower, "pixel_grad_l2"))
        assert upside_down["ssim"] < 0.9


class TestEngines:
    ARGUMENTS = (
        "--losses=sobel_l1,ssim,lpips_vgg",
        "--objective=lpips_vgg + fd_l1",
        "--pixel_gradient",
        "--chunk_pairs=6",
    )

    @pytest.fixture(scope="class")
    def direct(self, parquet, lpips_weights, tmp_path_factory) -> pa.Table:
        return score(tmp_path_factory.mktemp("direct") / "run", f"--input={parquet}", *self.ARGUMENTS)

    def test_beam_equals_in_memory(self, direct, parquet, lpips_weights):
        objective = parse_objective("lpips_vgg + fd_l1")
        weights = {"vgg16_lpips": lpips_weights}
        plan = Plan(("sobel_l1", "ssim", "lpips_vgg"), objective, pixel_gradient=True, weights=weights).with_backend()
        evaluator = load_evaluator(plan)
        series = list_chunks(shards.input_file(parquet), "auto", Fields(), chunk_pairs=6)
        tables = [scored(chunk, evaluator).metrics for one in series for chunk in read_series(one, Fields())]
        assert pa.concat_tables(tables).sort_by("source") == direct

    def test_portable_runner_gives_the_same_bits(self, direct, parquet, tmp_path):
        assert score(tmp_path / "run", f"--input={parquet}", *self.ARGUMENTS, *EMBEDDED) == direct


class TestAudit:
    RULES = "rules:\n  - {{rule: pairs, min: {least}}}\n"

    @pytest.mark.parametrize(("least", "code", "outcome"), [(20, OK, "pass"), (21, 3, "fail")])
    def test_gate_decides_the_exit_code(self, parquet, tmp_path, capsys, least, code, outcome):
        rules = tmp_path / "rules.yaml"
        rules.write_text(self.RULES.format(least=least))
        arguments = [f"--input={parquet}", "--losses=mae", "--quiet", f"--gate={rules}"]
        assert main([*arguments, f"--output={tmp_path}/run"]) == code
        assert read(tmp_path / "run" / "verdict.json")["verdict"] == outcome
        assert "pairs" in capsys.readouterr().out

    def test_finished_run_is_judged_again_and_not_scored(self, parquet, tmp_path, capsys):
        rules = tmp_path / "rules.yaml"
        arguments = [f"--input={parquet}", "--losses=mae", "--quiet", f"--gate={rules}", f"--output={tmp_path}/run"]
        rules.write_text(self.RULES.format(least=21))
        assert main(arguments) == 3
        scored = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "metrics").iterdir()}
        rules.write_text(self.RULES.format(least=20))
        assert main(arguments) == OK
        assert "is finished; judging it again" in capsys.readouterr().err
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "metrics").iterdir()} == scored
        assert main([*arguments, "--losses=mse"]) == USAGE
        assert "holds a finished run" in capsys.readouterr().err

    def test_mistake_in_the_rules_is_told_before_the_run(self, parquet, tmp_path, capsys):
        rules = tmp_path / "rules.yaml"
        rules.write_text("rules:\n  - {rule: pears, min: 1}\n")
        arguments = [f"--input={parquet}", "--losses=mae", f"--gate={rules}"]
        assert main([*arguments, f"--output={tmp_path}/run"]) == USAGE
        error = capsys.readouterr().err
        assert "pears" in error
        assert "pairs" in error
        assert not (tmp_path / "run").exists()

    def test_missing_baseline_is_told_before_the_run(self, parquet, tmp_path, capsys):
        rules = tmp_path / "rules.yaml"
        rules.write_text(self.RULES.format(least=1))
        arguments = [f"--input={parquet}", "--losses=mae", f"--gate={rules}", f"--baseline={tmp_path}/no-run"]
        assert main([*arguments, f"--output={tmp_path}/run"]) == USAGE
        assert "no-run" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_slices_and_text_metrics(self, parquet, tmp_path):
        options = ("--losses=mae", "--keep_fields=label", "--slice_by=label", "--metrics_format=csv")
        table = score(tmp_path / "run", f"--input={parquet}", *options)
        slices = read(tmp_path / "run" / "summary.json")["slices"]
        assert slices["by"] == "label"
        assert {"l0", "l1", "l2"} <= set(json.dumps(slices).replace('"', " ").split())
        text = [path.read_text().splitlines() for path in (tmp_path / "run" / "metrics_csv").glob("*.csv")]
        assert sum(len(lines) - 1 for lines in text) == len(table) == 20
        assert text[0][0].startswith("id,source,height,width,label,mae")


class TestOptimize:
    ARGUMENTS = ("--losses=mae,ssim,psnr", "--objective=mae + fd_l1", "--optimize", "--max_steps=8", "--chunk_pairs=6")

    @pytest.fixture(scope="class")
    def run(self, parquet, tmp_path_factory) -> Path:
        output = tmp_path_factory.mktemp("optimized") / "run"
        score(output, f"--input={parquet}", *self.ARGUMENTS, "--trace_every=4")
        return output

    def test_images_get_better(self, run):
        rows = metrics(run).to_pylist()
        assert len(rows) == 20
        assert all(row["objective_of_saved"] < row["objective_initial"] for row in rows)
        assert all(row["psnr_optimized"] > row["psnr"] for row in rows)
        assert all(row["trace"][0]["objective"] == row["objective_initial"] for row in rows)

    def test_saved_images_are_the_scored_ones(self, run, parquet):
        targets = {row["id"]: row["target"] for row in pq.read_table(parquet).to_pylist()}
        maes = {row["id"]: row["mae_optimized"] for row in metrics(run).to_pylist()}
        for row in pq.read_table(run / "optimized").to_pylist():
            saved, target = (np.asarray(Image.open(BytesIO(image))) for image in (row["image"], targets[row["id"]]))
            assert np.abs(saved / 255 - target / 255).mean() == pytest.approx(maes[row["id"]], rel=1e-5)

    def test_summary_has_before_and_after(self, run):
        losses = read(run / "summary.json")["losses"]
        assert losses["psnr_optimized"]["min"] > losses["psnr"]["min"]
        assert {"objective_initial", "objective_of_saved", "steps", "ssim_optimized"} <= losses.keys()

    def test_png_files_hold_the_same_images(self, run, parquet, tmp_path):
        score(tmp_path / "run", f"--input={parquet}", *self.ARGUMENTS, "--optimized_format=png")
        files = {path.read_bytes() for path in (tmp_path / "run" / "optimized").glob("pair_*.png")}
        assert files == set(pq.read_table(run / "optimized")["image"].to_pylist())

    def test_portable_runner_gives_the_same_bits(self, run, parquet, tmp_path):
        table = score(tmp_path / "run", f"--input={parquet}", *self.ARGUMENTS, "--trace_every=4", *EMBEDDED)
        assert table == metrics(run)
        images = [pq.read_table(output / "optimized").sort_by("source") for output in (run, tmp_path / "run")]
        assert images[0] == images[1]


class TestBadInput:
    BAD_BYTES = {
        "null": (None, "null_image"),
        "empty": (b"", "empty_bytes"),
        "text": (b"404 Not Found: no such object here", "unknown_format"),
        "truncated": (encode(noise(0, 40, 56))[:900], "truncated"),
        "jpeg-xl": (bytes.fromhex("0000000c4a584c200d0a870a") + bytes(20), "unsupported_format"),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "unsupported_format"),
        "two sizes": (encode(noise(0, 40, 57)), "size_mismatch"),
    }

    @staticmethod
    def forged_jpeg() -> bytes:
        """A small JPEG whose header claims 20000 x 20000 pixels."""
        content = bytearray(encode(noise(0, 48, 48), "JPEG"))
        size = content.index(b"\xff\xc0") + 5
        content[size : size + 4] = (20000).to_bytes(2, "big") * 2
        return bytes(content)

    @pytest.mark.parametrize("name", ["pairs.parquet", "pairs.tfrecord", "pairs.tfrecord.gz"])
    def test_costs_one_failure_row_each(self, tmp_path, name):
        target = encode(smooth(40, 56))
        bad = {**self.BAD_BYTES, "forged": (self.forged_jpeg(), "too_many_pixels")}
        records = [{"id": id, "generated": content, "target": target} for id, (content, _) in bad.items()]
        mixed = [record for pair in zip(good_pairs(len(records)), records, strict=True) for record in pair]
        path = write_shard(tmp_path / name, [{k: r[k] for k in ("id", "generated", "target")} for r in mixed])
        output = tmp_path / "run"
        table = score(output, f"--input={path}", "--losses=mae", "--chunk_pairs=5")
        rows = failures(output)
        assert {row["id"]: row["reason"] for row in rows} == {id: reason for id, (_, reason) in bad.items()}
        assert len(table) + len(rows) == len(mixed)
        counts = read(output / "run.json")["counts"]
        assert (counts["read"], counts["scored"], counts["failed"]) == (len(mixed), len(records), len(bad))
        assert {row["stage"] for row in rows} == {"decode"}
        assert next(row["bytes"] for row in rows if row["id"] == "text") == len(self.BAD_BYTES["text"][0])

    def test_damaged_record_and_vanished_file(self, tmp_path):
        good = write_shard(tmp_path / "in" / "good.tfrecord", good_pairs(4))
        content = bytearray(good.read_bytes())
        content[40] ^= 0xFF  # in the first record's data
        (tmp_path / "in" / "damaged.tfrecord").write_bytes(content)
        (tmp_path / "in" / "footerless.parquet").write_bytes(b"PAR1 and nothing else")
        output = tmp_path / "run"
        table = score(output, f"--input={tmp_path}/in/*", "--losses=mae")
        assert len(table) == 4 + 3
        assert sorted((row["reason"], row["scope"]) for row in failures(output)) == [
            ("damaged_data", "pair"),
            ("unreadable_file", "file"),
        ]
        counts = read(output / "run.json")["counts"]
        assert (counts["read"], counts["scored"], counts["failed"], counts["files_failed"]) == (8, 7, 1, 1)

    def test_nothing_scored_never_passes(self, tmp_path, capsys):
        pair = {"id": "a", "generated": b"", "target": b""}
        path = write_shard(tmp_path / "bad.parquet", [pair])
        assert main([f"--input={path}", f"--output={tmp_path}/run", "--losses=mae"]) == NOTHING_SCORED
        assert not (tmp_path / "run" / "_SUCCESS").exists()
        assert "1 failed" in capsys.readouterr().out

    def test_policies_leave_notes(self, tmp_path):
        buffer = BytesIO()
        Image.fromarray(smooth(40, 56)[..., 0]).save(buffer, "PNG")
        pair = {"id": "gray", "generated": buffer.getvalue(), "target": encode(smooth(40, 58))}
        path = write_shard(tmp_path / "gray.parquet", [pair])
        row = score(tmp_path / "run", f"--input={path}", "--losses=mae", "--size_mismatch=crop").to_pylist()[0]
        assert row["notes"] == ["generated:gray", "target:cropped_from_58x40"]
        assert (row["height"], row["width"]) == (40, 56)


class TestNothingScored:
    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            ([], "error: not a single pair was scored: the input holds none"),
            (
                [{"id": "a", "generated": b"x", "target": b"y"}] * 2,
                "error: not a single pair was scored: unknown_format (2); see {output}/failures/*.jsonl",
            ),
        ],
    )
    def test_it_is_an_error_that_says_why_even_if_quiet(self, tmp_path, capsys, pairs, message):
        schema = pa.schema([("id", pa.string()), ("generated", pa.binary()), ("target", pa.binary())])
        pq.write_table(pa.Table.from_pylist(pairs, schema), tmp_path / "pairs.parquet")
        output = tmp_path / "run"
        arguments = [f"--input={tmp_path}/pairs.parquet", f"--output={output}", "--losses=mae", "--quiet"]
        assert main(arguments) == NOTHING_SCORED
        assert capsys.readouterr().err == f"{message.format(output=output)}\n"


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--input={input}", "--losses=lpips"], "unknown loss 'lpips'. Did you mean 'lpips_vgg'?"),
            (["--input={input}", "--generated_field=image"], "no field 'image'"),
            (["--input={missing}"], "matches no file"),
            (["--input={input}", "--objective=ssim*mae"], "a product of losses is not allowed"),
            (["--input={input}", "--losses=mae", "--no_such_flag=1"], "no such flag: --no_such_flag"),
            (["--input={input}", "--runner=FlunkRunner"], "Unexpected pipeline runner: FlunkRunner"),
            (["--input={input}", "--weights=/nowhere/w.safetensors"], "cannot read the weights at /nowhere"),
        ],
    )
    def test_one_clear_message(self, parquet, tmp_path, capsys, arguments, message):
        filled = [argument.format(input=parquet, missing=tmp_path / "no-*.parquet") for argument in arguments]
        assert main([*filled, f"--output={tmp_path}/run"]) == USAGE
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1

    def test_second_run_is_refused_until_overwrite(self, parquet, tmp_path, capsys):
        output = tmp_path / "run"
        arguments = [f"--input={parquet}", "--losses=mae"]
        first = score(output, *arguments)
        assert main([*arguments, f"--output={output}"]) == USAGE
        assert "holds a finished run" in capsys.readouterr().err
        assert score(output, *arguments, "--overwrite") == first


def source_number(source: str) -> int:
    return int(source.rpartition("#")[2])
