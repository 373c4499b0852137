"""The meaning of columns: given where they are made, kept in every file, and obeyed by everything that judges a run."""

import itertools
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import audit_runs
from support.audit_runs import Elements, pair

from pipeline.audit.__main__ import main
from pipeline.audit.judging.rules import parse_rules
from pipeline.config import Config
from pipeline.parse import parse
from pipeline.presets import PRESETS
from transforms.columns import Column, columns_of
from transforms.losses.catalog import LOSSES
from transforms.schema import metrics_schema, optimization_fields
from transforms.storage.json_files import to_json
from transforms.summary.summary import Summary

# Columns that are not the values of one loss.
OTHERS = {
    "objective": ("before", "lower"),
    "pixel_grad_l2": ("before", "lower"),
    "pixel_grad_linf": ("before", "lower"),
    "objective_initial": ("before", "lower"),
    "objective_final": ("after", "lower"),
    "objective_of_saved": ("after", "lower"),
    "steps": ("", "none"),
}
CHOICES = (
    [*(f"--preset={name}" for name in PRESETS), f"--losses={','.join(LOSSES)}"],
    ["", "--pixel_gradient"],
    ["", "--optimize", "--optimize --trace_every=2"],
)


def configs() -> list[Config]:
    """One of every combination of flags that decide the columns."""
    common = ["--input=in.parquet", "--output=out"]
    given = [" ".join(flags).split() for flags in itertools.product(*CHOICES)]
    plain = [[*flags, "--objective=mae + fd_l1"] for flags in given] + [[f"--losses={loss}"] for loss in LOSSES]
    return [parse([*common, *flags]) for flags in plain]


def schema_of(config: Config) -> pa.Schema:
    """The schema of the metrics."""
    schema = metrics_schema(config.plan.columns, [pa.field("camera", pa.string())])
    added = optimization_fields(config.plan.optimization_columns, trace=True) if config.descent else ()
    return pa.schema([*schema, *added], schema.metadata)


class TestEveryColumn:
    def test_means_what_its_loss_does(self):
        columns = {column.name: column for config in configs() for column in config.columns}
        assert set(columns) == {*LOSSES, *(f"{name}_optimized" for name in LOSSES), *OTHERS}
        for name, column in columns.items():
            assert column.name == name
            if name in OTHERS:
                assert (column.loss, column.when, column.direction, column.formula) == ("", *OTHERS[name], "")
                continue
            loss = LOSSES[column.loss]
            assert (column.direction, column.formula) == (loss.direction, loss.formula)
            before = name.replace("_optimized", "")
            assert before == loss.name
            assert column.when == ("before" if name == before else "after")

    def test_comes_back_from_parquet(self, tmp_path):
        for config in configs():
            pq.write_table(schema_of(config).empty_table(), tmp_path / "metrics.parquet")
            assert columns_of(pq.read_schema(tmp_path / "metrics.parquet")) == config.columns

    def test_comes_back_from_a_summary(self):
        for config in configs():
            summary = Summary.empty(config.columns)
            assert Summary.from_json(json.loads(to_json(summary.to_json()))) == summary
            assert [found.column for found in summary.columns.values()] == list(config.columns)


FLAGS = ("--losses=mae,ssim,tv", "--optimize", "--objective=mae + fd_l1", "--max_steps=3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """Two optimized runs: pair 0 is the best of each, pair 4 the worst, and each pair of the second is worse."""
    directory = tmp_path_factory.mktemp("columns")
    weak, strong = ([pair(n, factor * (0.1 + n / 10)) for n in range(5)] for factor in (1, 1.6))
    return audit_runs.score(directory, weak, "weak", *FLAGS), audit_runs.score(directory, strong, "strong", *FLAGS)


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.heavy
class TestOptimizedRun:
    def test_files_say_what_their_columns_mean(self, runs):
        (file,) = (runs[0] / "metrics").iterdir()
        columns = columns_of(pq.read_schema(file))
        assert [asdict(column) for column in columns] == summary(runs[0])["columns"]
        ssim = LOSSES["ssim"]
        assert Column("ssim_optimized", "ssim", "after", "higher", ssim.formula) in columns

    def test_worst_and_best_pair(self, runs):
        for run in runs:
            (file,) = (run / "metrics").iterdir()
            saved = pq.read_table(file)["objective_of_saved"].to_pylist()
            ends = summary(run)["losses"]["objective_of_saved"]
            assert [row["objective_of_saved"] for row in ends["worst"]] == sorted(saved, reverse=True)
            assert [row["objective_of_saved"] for row in ends["best"]] == sorted(saved)

    def test_compare_tells_better_from_worse(self, runs, capsys):
        for ordered, shares in ((runs, ["0 %", "100 %", "0 %"]), (runs[::-1], ["100 %", "0 %", "0 %"])):
            assert main(["compare", *map(str, ordered)]) == 0
            lines = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
            cells = {line[0].strip(): [cell.strip() for cell in line] for line in lines}
            for column in ("objective_of_saved", "ssim_optimized"):
                assert [cell for cell in cells[column] if cell.endswith("%")][-3:] == shares, column
            assert cells.keys().isdisjoint({"tv", "tv_optimized", "steps"})

    def test_proposed_limits_are_on_the_bad_side(self, runs, capsys):
        assert main(["propose", str(runs[0])]) == 0
        rules = [rule for rule in parse_rules(capsys.readouterr().out, "") if rule.kind == "quantile"]
        limited = {rule.column: (rule.min > -float("inf"), rule.max < float("inf")) for rule in rules}
        assert limited["objective_of_saved"] == limited["mae_optimized"] == (False, True)
        assert limited["ssim_optimized"] == (True, False)
        assert limited["tv_optimized"] == limited["steps"] == (True, True)

    def test_the_proposed_gate_passes_a_better_run(self, runs, tmp_path):
        rules = tmp_path / "rules.yaml"
        assert main(["propose", str(runs[1]), f"--output={rules}"]) == 0
        wanted = [
            line for line in rules.read_text().splitlines() if "objective_of_saved" in line and "quantile" in line
        ]
        rules.write_text("\n".join(["rules:", *wanted]))
        assert main(["gate", str(runs[0]), f"--rules={rules}"]) == 0

    @pytest.mark.parametrize("verb", ["report", "trend"])
    def test_labels(self, runs, tmp_path, verb):
        output = tmp_path / "page.html" if verb == "report" else tmp_path
        assert main([verb, str(runs[0]), f"--output={output}"]) == 0
        page = (output if verb == "report" else tmp_path / "trend.html").read_text(encoding="utf-8")
        text = Elements(page).text
        for name, label in (
            ("ssim_optimized", "higher is better"),
            ("objective_of_saved", "lower is better"),
            ("steps", "no better or worse"),
            ("tv_optimized", "no better or worse"),
        ):
            assert f"{name}{label}" in text, name

    def test_a_rule_with_the_old_name_gets_a_hint(self, runs, tmp_path, capsys):
        (tmp_path / "rules.yaml").write_text("rules:\n  - {rule: mean, column: objective_saved, max: 1}\n")
        assert main(["gate", str(runs[0]), f"--rules={tmp_path}/rules.yaml"]) == 2
        assert "Did you mean 'objective_of_saved'?" in capsys.readouterr().err

    def test_is_compared_with_one_of_version_1(self, runs, tmp_path, capsys):
        old = shutil.copytree(runs[0], tmp_path / "old")
        (file,) = (old / "metrics").iterdir()
        table = pq.read_table(file)
        names = [name.replace("_of_saved", "_saved") for name in table.column_names]
        pq.write_table(pa.table(dict(zip(names, table.columns, strict=True))), file)
        data = json.loads((old / "summary.json").read_text().replace("objective_of_saved", "objective_saved"))
        del data["columns"]
        (old / "summary.json").write_text(json.dumps(data | {"version": 1}))
        assert main(["compare", str(old), str(runs[1])]) == 0
        mine = capsys.readouterr().out
        assert main(["compare", str(runs[0]), str(runs[1])]) == 0
        assert mine.splitlines()[1:] == capsys.readouterr().out.splitlines()[1:]
