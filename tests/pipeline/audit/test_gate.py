"""The gate as a command: its exit codes, its formats, and defects planted in a real dataset."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support import shards
from support.audited import summarized, write_run
from support.pictures import encode, smooth

from pipeline.audit.__main__ import main
from pipeline.audit.gate import FAILED, PASSED
from pipeline.run import main as run_pipeline

pytestmark = pytest.mark.heavy

USAGE = 2

PAIRS = 100
Pair = dict[str, object]


def good_pairs() -> list[Pair]:
    """Pictures and JPEGs of them."""
    pairs = []
    for number in range(PAIRS):
        target = smooth(32, 40, shift=number)
        pixels = encode(target, "JPEG", quality=30 + number % 60)
        camera = ["left", "right"][number % 2]
        pairs.append({"id": f"pair-{number}", "generated": pixels, "target": encode(target), "camera": camera})
    return pairs


def degraded(pairs: list[Pair]) -> list[Pair]:
    """2 % of the pairs are crude."""
    for number in (13, 57):
        pairs[number]["generated"] = encode(smooth(32, 40, shift=number), "JPEG", quality=1)
    return pairs


def recoloured(pairs: list[Pair]) -> list[Pair]:
    """All generated pictures are brighter by 1 %, and no worse otherwise."""
    for number, pair in enumerate(pairs):
        pixels = smooth(32, 40, shift=number).astype(int) + 3
        pair["generated"] = encode(np.clip(pixels, 0, 255).astype(np.uint8), "JPEG", quality=30 + number % 60)
    return pairs


def dropped(pairs: list[Pair]) -> list[Pair]:
    """Every tenth pair is gone."""
    return [pair for number, pair in enumerate(pairs) if number % 10]


def swapped(pairs: list[Pair]) -> list[Pair]:
    """Every pair has its neighbour's target."""
    targets = [pair["target"] for pair in pairs]
    for pair, target in zip(pairs, targets[1:] + targets[:1], strict=True):
        pair["target"] = target
    return pairs


def truncated(pairs: list[Pair]) -> list[Pair]:
    """A few files were cut short on their way."""
    for number in (3, 4, 5):
        pairs[number]["target"] = pairs[number]["target"][:100]
    return pairs


def score(directory: Path, pairs: list[Pair]) -> Path:
    directory.mkdir()
    shards.write_parquet(directory / "pairs.parquet", pa.Table.from_pylist(pairs), row_group_size=50)
    arguments = [f"--input={directory}/pairs.parquet", f"--output={directory}/run", "--losses=mae,ssim,sobel_l1"]
    assert run_pipeline([*arguments, "--quiet", "--keep_fields=camera"]) == 0
    return directory / "run"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A good night's run, with the rules made of it."""
    run = score(tmp_path_factory.mktemp("audit") / "good", good_pairs())
    assert main(["propose", str(run), f"--output={run}/rules.yaml"]) == 0
    return run


def judged(good: Path, run: Path) -> dict[str, dict[str, object]]:
    """The limits of the proposed rules, by the measured value."""
    code = main(["gate", str(run), f"--rules={good}/rules.yaml", f"--baseline={good}"])
    verdict = json.loads((run / "verdict.json").read_text())
    assert code == (FAILED if verdict["verdict"] == "fail" else PASSED)
    return {result["what"]: result for result in verdict["results"]}


class TestPlantedDefects:
    @pytest.mark.parametrize(
        ("plant", "failing", "holding"),
        [
            (degraded, "pairs with mae > ", "pairs|count_ratio|failure_fraction|drift of .*|quantile .*"),
            (recoloured, "drift of mae, (ks|wasserstein|psi)", "pairs|count_ratio|drift of sobel_l1, .*"),
            (dropped, "pairs|count_ratio", "pairs with .*|drift .*|quantile .*"),
            (swapped, "(drift of|quantile 0.5 of|pairs with) (mae|ssim|sobel_l1).*", "pairs|failure_fraction"),
            (truncated, "failure_fraction", "pairs|count_ratio|drift .*|quantile .*"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_fails_with_the_right_rule(self, good, tmp_path, plant, failing, holding):
        results = judged(good, score(tmp_path / "bad", plant(good_pairs())))
        outcomes = {what: result["outcome"] for what, result in results.items()}
        assert any(re.match(failing, what) and outcome == "fail" for what, outcome in outcomes.items()), outcomes
        assert {outcomes[what] for what in outcomes if re.fullmatch(holding, what)} == {"pass"}, outcomes

    def test_the_planted_pairs_are_named(self, good, tmp_path):
        results = judged(good, score(tmp_path / "bad", degraded(good_pairs())))
        (found,) = (result for what, result in results.items() if what.startswith("pairs with mae"))
        assert {example["id"] for example in found["examples"]} == {"pair-13", "pair-57"}
        assert found["value"] == 0.02

    def test_two_nights_of_the_same_data(self, good, tmp_path):
        results = judged(good, score(tmp_path / "again", good_pairs()))
        assert {result["outcome"] for result in results.values()} == {"pass"}
        assert {result["value"] for what, result in results.items() if what.startswith("drift")} == {0.0}


class TestCommand:
    RULES = "rules:\n  - {rule: pairs, min: 5}\n  - {rule: pair_limit, column: mae, max: 0.5, least_pairs: 1}\n"

    @pytest.fixture
    def files(self, tmp_path, monkeypatch):
        """Runs `good` and `bad`, one where nothing was scored and one that has not ended; rules for them."""
        monkeypatch.chdir(tmp_path)
        write_run(tmp_path / "good", summarized({"mae": [0.1] * 9}))
        write_run(tmp_path / "bad", summarized({"mae": [0.1] * 8 + [0.75]}))
        write_run(tmp_path / "nothing", summarized({"mae": []}, failed=2))
        (write_run(tmp_path / "unfinished", summarized({"mae": [0.1]})) / "_SUCCESS").unlink()
        write_run(tmp_path / "other", summarized({"mae": [0.1]}), weights={"vgg16_lpips": "def"})
        (tmp_path / "rules.yaml").write_text(self.RULES)
        (tmp_path / "typo.yaml").write_text(self.RULES.replace("max", "maks"))
        return tmp_path

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["good"], PASSED),
            (["good/"], PASSED),
            (["bad"], FAILED),
            (["nothing"], FAILED),
            (["bad", "--baseline=good"], FAILED),
            (["good", "--baseline=good/summary.json"], PASSED),
        ],
    )
    def test_exit_codes(self, files, arguments, code):
        assert main(["gate", *arguments, "--rules=rules.yaml"]) == code
        verdict = json.loads((files / arguments[0] / "verdict.json").read_text())
        assert verdict["verdict"] == {PASSED: "pass", FAILED: "fail"}[code]
        assert not list(files.glob("*/*.part"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "the following arguments are required: RUN, --rules. See pairloss audit gate --help"),
            (["good"], "the following arguments are required: --rules"),
            (["unfinished", "--rules=rules.yaml"], "unfinished has not ended: it has no _SUCCESS"),
            (["none", "--rules=rules.yaml"], "none is not a run directory: there is no none/run.json"),
            (["good", "--rules=typo.yaml"], "typo.yaml:3: rule 'pair_limit' has no key 'maks'. Did you mean 'max'?"),
            (["good", "--rules=none.yaml"], "cannot read the rules none.yaml"),
            (["good", "--rules=rules.yaml", "--baseline=other"], "weights differ, {'vgg16_lpips': 'abc'} and {"),
            (["good", "--rules=rules.yaml", "--baseline=none.json"], "none.json has no summary"),
            (["good", "--rules=rules.yaml", "--baseline=nothing"], "the baseline nothing has no scored pair"),
            (["good", "--rules=rules.yaml", "--format=xml"], "invalid choice: 'xml'"),
        ],
    )  # fmt: skip
    def test_wrong_requests(self, files, capsys, arguments, message):
        assert main(["gate", *arguments]) == USAGE
        captured = capsys.readouterr()
        assert re.fullmatch(r"error: .*\n", captured.err)
        assert message in captured.err
        assert captured.out == ""
        assert not list(files.glob("*/verdict.json"))

    def test_a_verdict_that_cannot_be_written(self, files, capsys):
        (files / "good" / "verdict.json").mkdir()
        assert main(["gate", "good", "--rules=rules.yaml"]) == USAGE
        assert "cannot write good/verdict.json" in capsys.readouterr().err

    def test_table(self, files, capsys):
        main(["gate", "bad", "--rules=rules.yaml"])
        lines = [line for line in capsys.readouterr().out.splitlines() if line.strip("┏━┳┓┡╇┩└─┴┘ ")]
        cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines[:-2]]
        assert cells == [
            ["rule", "value", "limit", "verdict"],
            ["pairs with mae > 0.5", "0.1111", "<= 0", "FAIL"],
            ["scored pairs", "9", ">= 1", "PASS"],
            ["pairs", "9", ">= 5", "PASS"],
        ]
        assert lines[-2:] == ["pairs with mae > 0.5: id-8", "FAIL: 1 failed, 2 passed"]

    @pytest.mark.parametrize("flag", ["--json", "--format=json"])
    def test_json(self, files, capsys, flag):
        main(["gate", "bad", "--rules=rules.yaml", flag])
        assert json.loads(capsys.readouterr().out) == json.loads((files / "bad" / "verdict.json").read_text())

    def test_github(self, files, capsys):
        (files / "a,b:100%.yaml").write_text(self.RULES.replace("min: 5", "min: 50, level: warn"))
        main(["gate", "bad", "--rules=a,b:100%.yaml", "--format=github"])
        assert capsys.readouterr().out.splitlines() == [
            "::error file=a%2Cb%3A100%25.yaml,line=3,title=pairloss gate::"
            "pairs with mae > 0.5 is 0.1111, limit <= 0; for example id-8",
            "::warning file=a%2Cb%3A100%25.yaml,line=2,title=pairloss gate::pairs is 9, limit >= 50",
            "fail: bad",
        ]

    def test_ids_and_slices_are_data(self, files, capsys):
        kept = ["[red]x\x1b[31m\n::error::y"] * 9
        write_run(files / "evil", summarized({"mae": [0.9] * 9}, kept=kept))
        (files / "rules.yaml").write_text(self.RULES.replace("least_pairs: 1", "least_pairs: 1, each_slice: true"))
        for form in ("table", "github"):
            assert main(["gate", "evil", "--rules=rules.yaml", f"--format={form}"]) == FAILED
            out = capsys.readouterr().out
            assert "\x1b" not in out
            assert not re.search("^::error::y", out, re.MULTILINE)
            assert "[red]x" in out


class TestPropose:
    def test_printed_or_written(self, good, tmp_path, capsys):
        assert main(["propose", str(good)]) == 0
        text = capsys.readouterr().out
        assert main(["propose", str(good), f"--output={tmp_path}/rules.yaml"]) == 0
        assert (tmp_path / "rules.yaml").read_text() == text
        assert capsys.readouterr().out == f"{tmp_path}/rules.yaml: 22 rules\n"
        assert text.startswith(f"# Proposed from {good}: 100 scored pairs, 0 failed.\n")

    @pytest.mark.parametrize(
        "columns",
        [
            {"mae": [0.0] * 40},
            {"ssim": [1.0] * 40},
            {"psnr": [float("inf")] * 40},
            {"psnr": [float("inf"), 30.0] * 20},
            {"tv": [0.1 + n / 1000 for n in range(40)]},
            {"objective": [-1.0 - n for n in range(40)]},
            {"mae": [1e-30 * 3**n for n in range(40)]},
            {"mae": [0.1] * 39 + [float("nan")], "mse": [None] * 40},
            {"steps": list(range(40))},
        ],
        ids=str,
    )
    def test_the_run_itself_passes(self, tmp_path, columns):
        run = write_run(tmp_path / "run", summarized(columns, failed=3))
        assert main(["propose", str(run), f"--output={tmp_path}/rules.yaml"]) == 0
        assert main(["gate", str(run), f"--rules={tmp_path}/rules.yaml", f"--baseline={run}"]) == PASSED

    def test_a_smaller_run_is_still_judged(self, tmp_path, capsys):
        """24 of 30 pairs: no rule that needs no baseline switches itself off."""
        values = [0.1 + n / 1000 for n in range(30)]
        good = write_run(tmp_path / "good", summarized({"mae": values}))
        bad = write_run(tmp_path / "bad", summarized({"mae": [value + 0.5 for value in values[:24]]}))
        assert main(["propose", str(good), f"--output={tmp_path}/rules.yaml"]) == 0
        assert main(["gate", str(bad), f"--rules={tmp_path}/rules.yaml", f"--baseline={good}"]) == FAILED
        verdict = json.loads((bad / "verdict.json").read_text())
        assert {result["outcome"] for result in verdict["results"]} == {"pass", "fail"}
        assert {r["what"] for r in verdict["results"] if r["outcome"] == "fail"} > {"drift of mae, ks", "pairs"}

    def test_skipped_rules_are_one_line_per_reason(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", summarized({"mae": [0.1 + n / 1000 for n in range(100)]}))
        assert main(["propose", str(run), f"--output={tmp_path}/rules.yaml"]) == 0
        assert main(["gate", str(run), f"--rules={tmp_path}/rules.yaml"]) == PASSED
        lines = capsys.readouterr().out.splitlines()
        assert "4 rules skipped: no baseline" in lines
        assert not [line for line in lines if "drift" in line]

    def test_of_nothing(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", summarized({"mae": []}, failed=3))
        assert main(["propose", str(run)]) == USAGE
        assert "has no scored pair to make rules from" in capsys.readouterr().err
