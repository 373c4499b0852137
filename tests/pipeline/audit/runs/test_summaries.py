"""Summaries as files: read, refused with one clear message, compared, merged."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from support.audited import IDENTITY, run_of, summarized, write_run
from support.scored import INF, Values

from pipeline.audit.__main__ import main
from pipeline.audit.runs.files import read_record
from pipeline.audit.runs.summaries import (
    RunSummary,
    check_comparable,
    merge_summaries,
    read_run,
    read_summary,
    write_summary,
)
from pipeline.errors import UsageError

DAYS = [summarized({"mae": [0.1 * n, 0.3]}, failed=n, start=10 * n) for n in range(3)]


@pytest.fixture
def days(tmp_path) -> list[Path]:
    return [write_run(tmp_path / f"day{number}", day) for number, day in enumerate(DAYS)]


def test_read_back(days):
    for path, day in zip(days, DAYS, strict=True):
        assert read_run(str(path)).summary == day
        assert read_summary(f"{path}/summary.json").summary == read_summary(str(path)).summary == day
    computed = {name: IDENTITY[name] for name in ("losses", "weights", "images")}
    # Versions that could not cut the border did not say so.
    assert read_run(str(days[0])).computed == computed | {"crop_border": 0}


def test_runs_with_and_without_a_border_cannot_be_compared(tmp_path):
    whole, cut = (
        write_run(tmp_path / str(border), summarized({"mae": [0.1]}), crop_border=border) for border in (0, 4)
    )
    check_comparable(read_run(str(whole)), read_run(str(write_run(tmp_path / "earlier", summarized({"mae": [0.1]})))))
    with pytest.raises(UsageError, match="their crop_border differ, 0 and 4"):
        check_comparable(read_run(str(whole)), read_run(str(cut)))


def test_runs_with_and_without_matched_means_cannot_be_compared(tmp_path):
    earlier, without, matched = (
        write_run(tmp_path / name, summarized({"mae": [0.1]}), **settings)
        for name, settings in {"earlier": {}, "without": {"gt_mean": False}, "matched": {"gt_mean": True}}.items()
    )
    check_comparable(read_run(str(earlier)), read_run(str(without)))
    with pytest.raises(UsageError, match="their gt_mean differ, None and True"):
        check_comparable(read_run(str(earlier)), read_run(str(matched)))


def test_runs_with_and_without_masks_cannot_be_compared(tmp_path):
    earlier, masked = (
        write_run(tmp_path / name, summarized({"mae": [0.1]}), **settings)
        for name, settings in {"earlier": {}, "masked": {"masked": True}}.items()
    )
    with pytest.raises(UsageError, match="their masked differ, None and True"):
        check_comparable(read_run(str(earlier)), read_run(str(masked)))


class TestVersion1:
    """The file is what version 0.1.0 made of `VALUES`."""

    FILE = Path(__file__).parents[3] / "data" / "summary_version_1.json"
    VALUES: ClassVar[dict[str, Values]] = {
        "mae": [0.1, 0.2, 0.3, None],
        "vgg_mse_keras": [1.0, 2.0, INF, 4.0],
        "objective_of_saved": [0.5, INF, 0.25, None],
        "steps": [1.0, 2.0, 3.0, None],
        "ssim_optimized": [0.95, 0.85, 0.9, None],
    }

    def new(self) -> RunSummary:
        kept = ["left", "left", "right", None]
        return run_of(summarized(self.VALUES, failed=1, kept=kept), "new")

    def test_is_read(self):
        assert read_summary(str(self.FILE)).summary == self.new().summary

    def test_merges_with_a_new_one(self, tmp_path):
        write_summary(replace(self.new(), path=f"{tmp_path}/new.json"))
        assert main(["merge", str(self.FILE), f"{tmp_path}/new.json", f"--output={tmp_path}/all.json"]) == 0
        twice = merge_summaries([self.new(), self.new()], "")
        assert read_summary(f"{tmp_path}/all.json").summary == twice.summary

    def test_an_unknown_column_is_told(self, tmp_path):
        path = tmp_path / "old.json"
        path.write_text(self.FILE.read_text().replace('"steps"', '"strides"'))
        with pytest.raises(UsageError, match="is not a complete summary: 'strides' is missing in it"):
            read_summary(str(path))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(path: Path, key: str) -> None:
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "_SUCCESS").unlink(), r"has not ended: it has no _SUCCESS. The command that started it"),
        (lambda run: (run / "summary.json").unlink(), r"has no summary: there is no .*summary.json"),
        (lambda run: (run / "run.json").unlink(), r"is not a run directory: there is no .*run.json"),
        (lambda run: (run / "run.json").write_text("{}"), r"is not a run directory: its run.json has no identity"),
        (lambda run: cut(run / "summary.json"), r"cannot read .*summary.json: "),
        (lambda run: (run / "summary.json").write_text("[]"), r"summary.json does not hold a JSON object"),
        (
            lambda run: without(run / "summary.json", "losses"),
            r"is not a complete summary: 'losses' is a required property",
        ),
        (lambda run: without(run / "summary.json", "version"), r"has the layout None, not 2: score again"),
        (lambda run: (run / "summary.json").write_bytes(b"\xff\xfe"), r"cannot read .*summary.json: "),
        (lambda run: (run / "summary.json").write_text("[" * 200_000), r"cannot read .*summary.json: "),
        (
            lambda run: (run / "run.json").write_text('{"fingerprint": "f", "identity": {}, "started": "x"}'),
            r"has started='x'",
        ),
    ],
    ids=[
        "unfinished",
        "no summary",
        "no run",
        "foreign",
        "half",
        "list",
        "part missing",
        "old",
        "binary",
        "deep",
        "time",
    ],
)
def test_what_cannot_be_read(days, damage, message):
    damage(days[0])
    with pytest.raises(UsageError, match=message) as caught:
        read_run(str(days[0]))
    assert "\n" not in str(caught.value)


def loss(data: dict) -> dict:
    return data["losses"]["mae"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: loss(data)["histogram"]["positive"].update(counts=[-3, 5]), "0: -3 is less than the minimum"),
        (lambda data: loss(data)["histogram"]["positive"].update(counts=[0.5, 1.5]), "0.5 is not of type 'integer'"),
        (lambda data: loss(data)["histogram"]["positive"].update(bins=[1, 10**9]), "is greater than the maximum"),
        (lambda data: loss(data)["histogram"]["positive"].update(bins=[-121, -121]), "has non-unique elements"),
        (lambda data: loss(data)["histogram"]["positive"].update(bins=[-500, -121]), "the numbers of mae contradict"),
        (lambda data: loss(data).update(sum="1/0"), "losses.mae.sum: '1/0' does not match"),
        (lambda data: loss(data).update(sum="1e99999999"), "losses.mae.sum: '1e99999999' does not match"),
        (lambda data: loss(data).update(sum="1000"), "the numbers of mae contradict"),
        (lambda data: loss(data).update(sum_of_squares="0"), "the numbers of mae contradict"),
        (lambda data: loss(data).update(min="x"), "losses.mae.min: 'x' is not of type"),
        (lambda data: loss(data).update(infinite=0, negative_infinite=1), "mae"),
        (lambda data: loss(data)["worst"][0].update(mae=10**400), "too large"),
        (lambda data: loss(data)["worst"][0].pop("source"), "losses.mae.worst.0: 'source' is a required property"),
        (lambda data: data["counts"].update(scored=-1), "counts.scored: -1 is less than the minimum"),
        (lambda data: data["counts"].update(listed=7), "2 pairs scored and 1 failed are not the 7 read"),
        (lambda data: data["failures"].clear(), "the failures by reason add up to 0, not to 1"),
        (lambda data: data["slices"].update(values=[]), "the slices by kept do not hold the 2 scored pairs"),
        (lambda data: data.update(slices="x"), "slices: 'x' is not of type 'object', 'null'"),
        (lambda data: data["losses"].clear(), "the columns are mae, but the losses "),
        (lambda data: data["slices"]["values"][0]["losses"].clear(), "the columns are mae, but the losses "),
        (lambda data: data["columns"][0].update(direction="up"), "columns.0.direction: 'up' is not one of"),
    ],
)  # fmt: skip
def test_damaged_or_forged_numbers_are_refused(tmp_path, damage, message):
    write_run(tmp_path, summarized({"mae": [0.1, 0.3]}, failed=1, kept=["a", "b"]))
    data = json.loads((tmp_path / "summary.json").read_text())
    damage(data)
    (tmp_path / "summary.json").write_text(json.dumps(data))
    with pytest.raises(UsageError) as caught:
        read_run(str(tmp_path))
    assert "summary.json is not a complete summary: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_lacks_are_refused(tmp_path, number):
    """Also as the value of a kept field, which nothing else checks: it could not be written again."""
    write_run(tmp_path, summarized({"mae": [0.1, 0.3]}, kept=["a", "b"]))
    text = (tmp_path / "summary.json").read_text()
    (tmp_path / "summary.json").write_text(text.replace('"kept": "a"', f'"kept": {number}'))
    with pytest.raises(UsageError, match=f"summary.json: it holds {number}, which is not a finite number"):
        read_run(str(tmp_path))


def test_nothing_scored_has_ended(tmp_path):
    run = write_run(tmp_path / "run", summarized({"mae": []}, failed=3))
    assert not (run / "_SUCCESS").exists()
    assert read_run(str(run)).summary.failed == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", {"vgg16_lpips": "def"}),
        ("losses", ["mse"]),
        ("images", {"size_mismatch": "crop"}),
        ("objective", "mae"),
    ],
)
def test_other_numbers_are_not_compared(name, value):
    one, other = run_of(DAYS[0], "a"), run_of(DAYS[1], "b", **{name: value})
    with pytest.raises(UsageError, match=f"a and b cannot be compared: their {name} differ"):
        check_comparable(one, other)
    with pytest.raises(UsageError, match="cannot be compared"):
        merge_summaries([one, other], "sum")


def test_backends_are_not_mixed_but_summaries_from_before_them_compare():
    on_tensorflow, on_ncnn = (run_of(DAYS[0], name, backend=name) for name in ("tensorflow", "ncnn"))
    with pytest.raises(UsageError, match="cannot be compared: their backend differ, tensorflow and ncnn"):
        check_comparable(on_tensorflow, on_ncnn)
    check_comparable(run_of(DAYS[0], "earlier"), on_ncnn)
    check_comparable(on_ncnn, run_of(DAYS[0], "earlier"))


def test_limits_decide_which_images_fail_and_no_number():
    small, large = ({"size_mismatch": "fail", "max_image_pixels": limit} for limit in (2**23, 2**28))
    check_comparable(run_of(DAYS[0], "a", images=small), run_of(DAYS[0], "b", images=large))
    with pytest.raises(UsageError, match="their images differ"):
        check_comparable(run_of(DAYS[0], "a", images=small), run_of(DAYS[0], "b", images=small | {"color": "convert"}))


class TestEarlierVgg:
    """Earlier versions had `--vgg`, and a key of its own for each network's weights."""

    def test_the_same_network_compares(self, tmp_path):
        summary = summarized({"vgg_mse_keras": [1.0], "mae": [2.0]})
        now = write_run(
            tmp_path / "now",
            summary,
            losses=["vgg_mse_keras", "mae"],
            objective="mae + vgg_mse_keras",
            weights={"vgg16_keras": "abc"},
        )
        before = write_run(tmp_path / "before", summary)
        for name, key in (("run.json", "identity"), ("summary.json", "computed")):
            content = json.loads((before / name).read_text())
            del content[key]["weights"]
            content[key] |= {"losses": ["mae", "vgg_mse"], "objective": "mae + vgg_mse", "vgg": "keras"}
            content[key] |= {"lpips_weights": None, "keras_weights": "abc"}
            for column in content.get("columns", ()):
                column["loss"] = column["loss"].removesuffix("_keras")
            (before / name).write_text(json.dumps(content))
        check_comparable(read_run(str(now)), read_run(str(before)))
        assert read_run(str(now)).summary == read_run(str(before)).summary
        assert read_record(str(before)).identity["weights"] == {"vgg16_keras": "abc"}

    def test_another_network_does_not(self, days, tmp_path):
        path = days[0] / "summary.json"
        content = json.loads(path.read_text())
        del content["computed"]["weights"]
        content["computed"] |= {"vgg": "lpips", "lpips_weights": "abc", "keras_weights": None}
        path.write_text(json.dumps(content))
        check_comparable(read_run(str(days[0])), read_run(str(days[1])))
        content["computed"]["lpips_weights"] = "def"
        path.write_text(json.dumps(content))
        with pytest.raises(UsageError, match="their weights differ"):
            check_comparable(read_run(str(days[0])), read_run(str(days[1])))


def test_the_order_of_losses_does_not_matter(tmp_path):
    summary = summarized({"mae": [1.0], "mse": [1.0]})
    runs = [write_run(tmp_path / str(n), summary, losses=names) for n, names in enumerate((["mae", "mse"], ["mse", "mae"]))]  # fmt: skip # noqa: E501
    check_comparable(*(read_run(str(run)) for run in runs))


class TestMerge:
    def test_equals_one_run_of_all(self, days, tmp_path, capsys):
        arguments = ["merge", *map(str, days), f"--output={tmp_path}/all.json"]
        assert main(arguments) == 0
        text = (tmp_path / "all.json").read_text()
        assert main(["merge", *map(str, days[::-1]), f"--output={tmp_path}/all.json"]) == 0
        assert (tmp_path / "all.json").read_text() == text
        merged = read_summary(f"{tmp_path}/all.json").summary
        whole = merge_summaries([run_of(day) for day in DAYS], "").summary
        assert merged == whole
        assert (merged.scored, merged.failed, merged.chunks) == (6, 3, 3)
        assert "6 scored pairs, merged from 3" in capsys.readouterr().out
        assert sorted(path.name for path in tmp_path.iterdir()) == ["all.json", "day0", "day1", "day2"]

    def test_in_two_steps(self, days, tmp_path):
        assert main(["merge", str(days[0]), str(days[1]), f"--output={tmp_path}/two.json"]) == 0
        assert main(["merge", f"{tmp_path}/two.json", str(days[2]), f"--output={tmp_path}/all.json"]) == 0
        assert read_summary(f"{tmp_path}/all.json").summary == merge_summaries([run_of(d) for d in DAYS], "").summary

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["day0", "day0", "--output=all.json"], "day0 is given twice"),
            (["day0", "--output=day1/summary.json"], "lies in a run's directory"),
            (["day0", "--output=all"], "must end in .json"),
            (["day0"], "--output"),
            (["--output=all.json"], "RUN_OR_SUMMARY"),
            (["none", "--output=all.json"], "none is not a run directory"),
            (
                ["none.json", "--output=all.json"],
                "there is no none.json; name the --output of a run that has ended, or",
            ),
            (["day0", "", "--output=all.json"], "'' is not a path"),
            (["day0", "--output=day0/_SUCCESS/all.json"], "cannot write"),
        ],
    )
    def test_usage(self, days, tmp_path, monkeypatch, capsys, arguments, message):
        monkeypatch.chdir(tmp_path)
        assert main(["merge", *arguments]) == 2
        error = capsys.readouterr().err
        assert re.match(r"error: .*\n$", error)
        assert message in error
        assert not (tmp_path / "all.json").exists()

    def test_an_output_that_is_a_directory(self, days, tmp_path, capsys):
        (tmp_path / "all.json").mkdir()
        assert main(["merge", f"{tmp_path}/day0", f"--output={tmp_path}/all.json"]) == 2
        assert f"cannot write {tmp_path}/all.json: it is a directory; name a file" in capsys.readouterr().err
        assert not (tmp_path / "all.json.part").exists()

    def test_different_slices(self, tmp_path, capsys):
        write_run(tmp_path / "a", summarized({"mae": [1.0]}, kept=["x"]))
        write_run(tmp_path / "b", summarized({"mae": [1.0]}))
        assert main(["merge", f"{tmp_path}/a", f"{tmp_path}/b", f"--output={tmp_path}/all.json"]) == 2
        assert "a summary with slices and one without cannot be merged" in capsys.readouterr().err
