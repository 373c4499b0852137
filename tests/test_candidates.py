"""Several candidates of one target: a row per pair and candidate, from records and from folders."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.audit_runs import Elements
from support.pictures import encode, noise, smooth

from pipeline.audit.__main__ import main as audit
from pipeline.audit.runs.difference import difference, read_compared
from pipeline.console import numbers
from pipeline.run import OK, USAGE, main
from transforms.images.decode import DecodePolicy
from transforms.images.sandboxed import decode_pairs
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import Fields
from transforms.scoring.encoded_pairs import encoded_pairs
from transforms.worker.sandbox import Sandbox

pytestmark = pytest.mark.heavy

MODELS = ("model_a", "model_b")
OPTIONS = ("--losses=mae,ssim", "--quiet", "--chunk_pairs=5", "--batch_size=1")


def records() -> list[dict[str, object]]:
    """Six targets with two candidates; one candidate of 2 and the target of 4 are broken."""
    rows = []
    for number in range(6):
        images = {name: encode(noise(10 * number + i, 24, 32)) for i, name in enumerate(MODELS)}
        rows.append({"id": f"{number}", **images, "gt": encode(smooth(24, 32, number))})
    rows[2]["model_b"] = b"broken"
    rows[4]["gt"] = b"broken"
    return rows


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("candidates")
    rows = records()
    shards.write_parquet(root / "pairs.parquet", pa.Table.from_pylist(rows), row_group_size=4)
    shards.write_tfrecord(root / "pairs.tfrecord", rows)
    named = []
    for row in rows:
        for name in (*MODELS, "gt"):
            shards.write(root / name / f"{row['id']}.png", row[name])
        named.append({"id": row["id"], **{name: f"{name}/{row['id']}.png" for name in (*MODELS, "gt")}})
    shards.write_parquet(root / "paths.parquet", pa.Table.from_pylist(named))
    shards.write(root / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in named).encode())
    return root


def run(output: Path, *flags: str) -> tuple[pa.Table, dict[tuple[str, str], str]]:
    """The metrics sorted by key, and the reasons of the failures by key."""
    assert main([f"--output={output}", *flags, *OPTIONS]) == OK
    counts = json.loads((output / "run.json").read_text())["counts"]
    assert counts["scored"] + counts["failed"] == counts["read"] == 12
    lines = [line for path in (output / "failures").iterdir() for line in path.read_text().splitlines()]
    failed = {(row["id"], row["candidate"]): row["reason"] for row in map(json.loads, lines)}
    return pq.read_table(output / "metrics").sort_by([("id", "ascending"), ("candidate", "ascending")]), failed


@pytest.fixture(scope="module")
def scored(inputs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "parquet"
    run(output, f"--input={inputs}/pairs.parquet", f"--generated_field={','.join(MODELS)}", "--target_field=gt")
    return output


class TestRun:
    def test_every_candidate_is_a_row_or_a_failure(self, scored, inputs):
        table = pq.read_table(scored / "metrics").sort_by([("id", "ascending"), ("candidate", "ascending")])
        keys = list(zip(table["id"].to_pylist(), table["candidate"].to_pylist(), strict=True))
        assert keys == [(str(n), m) for n in range(6) for m in MODELS if (n, m) != (2, "model_b") and n != 4]
        summary = json.loads((scored / "summary.json").read_text())
        assert summary["duplicate_ids"] == 0
        assert [(one["value"], one["pairs"]) for one in summary["slices"]["values"]] == [("model_a", 5), ("model_b", 4)]
        assert table["source"].to_pylist()[:3] == [f"{inputs}/pairs.parquet#{n}" for n in range(3)]

    @pytest.mark.parametrize("name", ["pairs.tfrecord", "pairs.jsonl", "paths.parquet", "folders", "field"])
    def test_every_input_gives_the_same_rows(self, scored, inputs, tmp_path, name):
        if name == "folders":
            flags = [
                *(f"--generated={model}={inputs}/{model}/*.png" for model in MODELS),
                f"--target={inputs}/gt/*.png",
            ]
        elif name == "field":
            (tmp_path / "out").mkdir()
            for model in MODELS:
                (tmp_path / "out" / model).symlink_to(inputs / model)
            flags = [f"--generated={tmp_path}/out/{{candidate}}/{{id}}.png", f"--target={inputs}/gt/{{id}}.png"]
        else:
            flags = [f"--input={inputs}/{name}", f"--generated_field={','.join(MODELS)}", "--target_field=gt"]
        table, failed = run(tmp_path / "run", *flags)
        expected = pq.read_table(scored / "metrics").sort_by([("id", "ascending"), ("candidate", "ascending")])
        assert table.drop_columns("source") == expected.drop_columns("source")
        broken = "unknown_format"
        assert failed == {("2", "model_b"): broken, ("4", "model_a"): broken, ("4", "model_b"): broken}

    def test_compare_joins_by_id_and_candidate(self, scored, tmp_path):
        compared = read_compared(str(scored))
        found = difference(compared, compared)
        assert (found.common.pairs, found.common.repeated) == (9, 0)
        assert compared.metrics["key"][0].as_py() == "0 [model_a]"
        assert audit(["compare", str(scored), str(scored), f"--output={tmp_path}/compare.html"]) == OK

    def test_reports_name_the_candidate(self, scored, tmp_path):
        assert audit(["report", str(scored), f"--output={tmp_path}/report.html"]) == OK
        text = (tmp_path / "report.html").read_text()
        assert "0 [model_b]" in text
        assert "another pair is there now" not in text
        page = Elements(text)
        assert {"slices", "candidates"} <= set(page.attributes("id"))
        assert "Slices by candidate" in page.text
        assert "model_a → model_b: 4 pairs in common; 1 only model_a" in page.text

    def test_compares_the_candidates_of_one_run(self, scored, tmp_path, capsys):
        assert audit(["compare", str(scored), f"--output={tmp_path}/compare.html"]) == OK
        table = capsys.readouterr().out
        assert "model_a -> model_b" in table
        assert "4 pairs in common; 1 only model_a" in table
        rows = (
            pq.read_table(scored / "metrics").to_pandas().pivot(index="id", columns="candidate", values="mae").dropna()
        )
        gains = rows.model_a - rows.model_b
        mae = next(line for line in table.splitlines() if " mae " in line).split("│")
        medians = [numbers.number(rows[name].sort_values().iloc[1]) for name in MODELS]
        assert [cell.strip() for cell in mae[2:4]] == medians
        assert mae[4].strip() == numbers.signed(gains.mean())
        assert mae[6].strip() == f"{100 * (gains > 0).mean():.3g} %"
        page = Elements((tmp_path / "compare.html").read_text())
        shown = {row["data-title"]: row["data-groups"] for row in page.of("tr") if "data-title" in row}
        assert shown.keys() == set(rows.index)
        assert "0-better-0" in shown[gains.idxmax()].split()
        assert len(page.of("img")) == 5 * len(rows)
        assert "model_b: difference ×4" in page.text  # noqa: RUF001 (times)

    def test_a_gate_judges_each_candidate(self, scored, tmp_path, capsys):
        (tmp_path / "rules.yaml").write_text(
            "rules: [{rule: mean, column: mae, max: 0.0001, each_slice: true, least_pairs: 1}]"
        )
        assert audit(["gate", str(scored), f"--rules={tmp_path}/rules.yaml"]) == 3
        found = json.loads((scored / "verdict.json").read_text())["results"]
        assert {row["slice"] for row in found} == {"", *(f"candidate={name}" for name in MODELS)}
        (scored / "verdict.json").unlink()

    def test_metrics_that_are_gone(self, scored, tmp_path, capsys):
        shutil.copytree(scored, tmp_path / "run")
        shutil.rmtree(tmp_path / "run/metrics")
        for verb in ("report", "compare"):
            assert audit([verb, str(tmp_path / "run")]) == USAGE
            assert "cannot read the metrics" in capsys.readouterr().err

    def test_a_missing_candidate_is_a_failure_of_its_own(self, inputs, tmp_path):
        for number in range(6):
            image = (inputs / f"gt/{number}.png").read_bytes()
            shards.write(tmp_path / f"gt/{number}.png", image)
            shards.write(tmp_path / f"a/{number}.png", image)
            if number != 3:
                shards.write(tmp_path / f"b/{number}.png", image)
        _, failed = run(
            tmp_path / "run", *(f"--generated={name}={tmp_path}/{name}" for name in "ab"), f"--target={tmp_path}/gt"
        )
        assert failed == {("3", "b"): "no_generated"} | {("4", name): "unknown_format" for name in "ab"}

    @pytest.mark.parametrize(
        ("flags", "problem"),
        [
            (["--input=x.parquet", "--generated_field=a,a"], "given twice"),
            (["--input=x.parquet", "--generated_field=a,b", "--keep_fields=candidate"], "would clash"),
            (["--generated=a=x/{id}.png", "--generated=b=y/{id}.png", "--generated=z/{id}.png"], "has no name"),
            (["--generated=a=x/{candidate}/{id}.png", "--generated=b=y/{candidate}/{id}.png"], "drop one"),
        ],
    )
    def test_wrong_flags(self, tmp_path, capsys, flags, problem):
        target = [] if flags[0].startswith("--input") else ["--target=gt/{id}.png"]
        assert main([*flags, *target, f"--output={tmp_path}/run", "--losses=mae"]) == USAGE
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.tfrecord", "pairs.jsonl"])
def test_a_target_is_decoded_once(inputs, name):
    fields = Fields((*MODELS,), "gt")
    ((chunk, *_), *_) = list_chunks(shards.input_file(inputs / name), "auto", fields)
    (encoded,) = read_series((chunk,), fields)
    pairs = decode_pairs(encoded_pairs(encoded.pairs), DecodePolicy(), Sandbox())
    assert pairs[0].target.ctypes.data == pairs[1].target.ctypes.data
    assert pairs[0].generated.ctypes.data != pairs[1].generated.ctypes.data


def test_a_hive_directory_is_no_candidate(inputs, tmp_path):
    for side in ("out", "gt"):
        image = (inputs / "gt/0.png").read_bytes()
        shards.write(tmp_path / f"day=1/{side}/0.png", image)
    sides = ["--generated=day=1/out/*.png", "--target=day=1/gt/*.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main([*sides, "--output=run", "--losses=mae", "--quiet"]) == OK
        assert "candidate" not in pq.read_table("run/metrics").column_names
