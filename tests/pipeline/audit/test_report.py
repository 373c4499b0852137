"""The report of a run: what it says, what it shows, and what it makes of hostile or missing data."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support import audit_runs, shards
from support.audit_runs import Elements, pair

from pipeline.audit.__main__ import main
from pipeline.audit.pages.render import encode, literal
from pipeline.console.numbers import number, percent

pytestmark = pytest.mark.heavy

CORRUPT = {"id": "broken <b>", "generated": b"no image", "target": b"", "camera": "camera 1"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style></script><script>alert(2)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- a comment",
    "\u202egnp.exe",
    "new\nline\x00\x1b[31m",
    "=cmd()",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Thirty pairs, of which two are planted and one is corrupt."""
    pairs = [pair(n, strength=0.9 if n in (7, 19) else 0.05 + n / 300) for n in range(29)]
    return audit_runs.score(tmp_path_factory.mktemp("report"), [*pairs, CORRUPT])


def report(run: Path, *flags: object) -> Elements:
    output = run.parent / f"{run.name}-page.html"
    assert main(["report", str(run), f"--output={output}", *map(str, flags)]) == 0
    return Elements(output.read_text(encoding="utf-8"))


def page_of(run: Path) -> str:
    return (run.parent / f"{run.name}-page.html").read_text(encoding="utf-8")


class TestContent:
    @pytest.fixture(scope="class")
    def page(self, run) -> Elements:
        return report(run)

    def test_default_place_is_the_run(self, run, capsys):
        assert main(["report", str(run)]) == 0
        assert capsys.readouterr().out == f"{run}/report.html\n"
        assert (run / "report.html").stat().st_size < 5e6
        (run / "report.html").unlink()

    def test_sections_come_in_the_order_of_interest(self, page):
        ids = [attributes["id"] for attributes in page.of("section")]
        assert ids == ["verdict", "losses", "failures", "pairs", "images"]

    def test_planted_pairs_come_first(self, page):
        titles = [attributes["data-title"] for attributes in page.of("tr") if "data-title" in attributes]
        assert set(titles[:2]) == {"pair/7", "pair/19"}

    def test_four_pictures_of_every_pair_and_a_map_of_the_worst_in_ssim(self, page):
        rows = [attributes for attributes in page.of("tr") if "data-title" in attributes]
        pictures = page.of("img")
        maps = [picture["alt"] for picture in pictures if picture["alt"].startswith("where")]
        assert len(pictures) == 4 * len(rows) + len(maps)
        assert len(maps) == 10
        assert all(caption.startswith("where ssim is low, pair ") for caption in maps)
        assert all(picture["src"].startswith("data:image/webp;base64,") for picture in pictures)
        assert {picture["alt"].split(",")[0].split(" ")[0] for picture in pictures} == {
            *("generated", "target", "difference", "where", "gradient")
        }
        assert "gradient of ssim" in page.text

    def test_every_pair_has_an_anchor_that_its_link_names(self, page):
        anchors = {attributes["id"] for attributes in page.of("tr") if "data-title" in attributes}
        links = {attributes["href"][1:] for attributes in page.of("a") if attributes.get("class") == "here"}
        assert anchors == links
        assert all(re.fullmatch(r"pair-[0-9a-f]{12}", anchor) for anchor in anchors)

    def test_failures_have_reason_meaning_and_example(self, page):
        assert "unknown_format" in page.text
        assert "the first bytes belong to no known image format" in page.text
        assert "broken <b>" in page.text
        assert "3.33 % of the pairs read" in page.text

    def test_kept_fields_and_sizes(self, page):
        assert "camera 1" in page.text
        assert "56x40" in page.text

    def test_without_gate_and_baseline_it_says_so(self, page):
        assert "No verdict" in page.text
        assert "none given" in page.text

    def test_values_can_be_copied_in_full(self, run, page):
        worst = json.loads((run / "summary.json").read_text())["losses"]["mae"]["worst"][0]
        assert str(worst["mae"]) in page.attributes("data-value")
        assert {worst["id"], worst["source"]} <= set(page.attributes("data-copy"))


@pytest.mark.parametrize("suffix", [".tfrecord", ".tfrecord.gz"])
def test_pictures_come_from_tfrecords_too(tmp_path, suffix):
    run = audit_runs.score(tmp_path, [pair(n, strength=n / 60) for n in range(40)], suffix=suffix)
    page = report(run)
    titles = [attributes["data-title"] for attributes in page.of("tr") if "data-title" in attributes]
    assert titles[0] == "pair/39"
    assert len(page.of("img")) == 5 * len(titles)


class TestBaseline:
    def test_same_data_has_no_drift(self, run):
        page = report(run, f"--baseline={run / 'summary.json'}")
        assert "±0" in page.text
        assert not [text for text in page.attributes("class") if text in ("n bad", "n good")]
        assert len([attributes for attributes in page.of("path") if attributes.get("class") == "outline"]) == 3

    def test_worse_data_is_marked(self, run, tmp_path):
        worse = audit_runs.score(tmp_path, [pair(n, strength=0.4) for n in range(20)])
        page = report(worse, f"--baseline={run}")
        # The medians are worse, but the worst pairs of the baseline were planted.
        assert page.attributes("class").count("n bad") == 3
        assert page.attributes("class").count("n good") == 3
        assert "baseline 29" in page.text

    def test_the_bad_tail_is_judged_beside_the_median(self, run, tmp_path):
        """Most pairs are better, but the worst two are worse, and only the tail shows it."""
        good = audit_runs.score(tmp_path, [pair(n, 0.2) for n in range(20)], "good")
        mixed = audit_runs.score(tmp_path, [pair(n, 0.9 if n < 2 else 0.1) for n in range(20)], "mixed")
        page = report(mixed, f"--baseline={good}")
        assert [text for text in page.attributes("class") if text in ("n bad", "n good")] == ["n good", "n bad"] * 3
        assert "p95" in page.text

    def test_other_losses_are_refused(self, run, tmp_path, capsys):
        other = audit_runs.score(tmp_path, [pair(1)], "other", "--losses=mae")
        assert main(["report", str(run), f"--baseline={other}"]) == 2
        assert "cannot be compared: their losses differ" in capsys.readouterr().err


class TestVerdict:
    RULES = """
rules:
  - {rule: failure_fraction, max: 0.01}
  - {rule: pair_limit, column: mae, max: 0.2, allowed: 0, level: warn, least_pairs: 1}
  - {rule: quantile, column: ssim, quantile: 0.5, min: 0.1, least_pairs: 1}
  - {rule: mean, column: psnr, min: 1, least_pairs: 9999}
"""

    def test_rules_that_do_not_hold_come_first(self, run, tmp_path):
        rules = tmp_path / "rules.yaml"
        rules.write_text(self.RULES)
        judged = audit_runs.copy_run(run, tmp_path / "judged")
        assert main(["gate", str(judged), f"--rules={rules}"]) == 3
        page = report(judged)
        text = " ".join(page.text.split())
        assert "FAIL 1 of 5 rules fails, 1 warns, 1 skipped" in text
        assert text.index("failure_fraction") < text.index("pairs with mae > 0.2") < text.index("3 more rules")
        links = [attributes["href"] for attributes in page.of("a") if attributes.get("class") == "code"]
        anchors = {f"#{attributes['id']}" for attributes in page.of("tr") if "data-title" in attributes}
        assert len(links) == 2
        assert set(links) <= anchors

    @pytest.fixture(scope="class")
    def without_pictures(self, tmp_path_factory) -> Path:
        run = audit_runs.score(tmp_path_factory.mktemp("judged"), [pair(1)])
        (run.parent / "run.parquet").unlink()
        return run

    @pytest.mark.parametrize("content", ["{", "[]", '{"verdict": "perhaps"}', '{"verdict": "pass"}', "[" * 100_000])
    def test_a_damaged_verdict_is_one_message(self, without_pictures, capsys, content):
        (without_pictures / "verdict.json").write_text(content)
        assert main(["report", str(without_pictures)]) == 2
        assert "verdict.json" in capsys.readouterr().err


class TestSlices:
    def test_every_slice_beside_the_whole(self, tmp_path):
        pairs = [pair(n, strength=0.6 if n % 3 == 2 else 0.1) for n in range(12)]
        page = report(audit_runs.score(tmp_path, pairs, "run", "--slice_by=camera"))
        assert "Slices by camera" in page.text
        assert "slices" in [attributes["id"] for attributes in page.of("section")]
        medians = page.text.split("Slices by camera")[1].split("camera 2")[1].split("%")[0].split()
        assert medians[0] == "4"
        assert medians[-1].startswith("+")

    def test_a_median_that_is_not_there_has_no_change(self, tmp_path):
        pairs = [pair(n, strength=0 if n % 3 == 2 else 0.1) for n in range(6)]
        page = report(audit_runs.score(tmp_path, pairs, "run", "--slice_by=camera", "--losses=psnr"))
        row = page.text.split("Slices by camera")[1].split("camera 2")[1].split("Failures")[0]
        assert row.split() == ["2", "\N{EN DASH}"]


class TestGradient:
    def test_the_worst_pairs_have_it_where_a_network_takes_long(self, lpips_weights, tmp_path, monkeypatch):
        monkeypatch.setattr("pipeline.audit.pages.gallery._NETWORK_PIXELS", 2 * audit_runs.HEIGHT * audit_runs.WIDTH)
        pairs = [pair(n, strength=n / 10) for n in range(5)]
        flags = ("--losses=lpips_vgg", "--objective=lpips_vgg + mae")
        page = report(audit_runs.score(tmp_path, pairs, "run", *flags))
        pictures = [picture["alt"] for picture in page.of("img") if picture["alt"].startswith("gradient")]
        assert pictures == [f"gradient of the objective, pair pair/{n}" for n in (4, 3)]
        assert "3 of the pairs have no gradient picture" in page.text

    def test_a_loss_whose_gradient_says_nothing_has_none(self, tmp_path):
        page = report(audit_runs.score(tmp_path, [pair(1)], "run", "--losses=mae,psnr"))
        assert [picture["alt"].split(",")[0].split(" ")[0] for picture in page.of("img")] == [
            *("generated", "target", "difference")
        ]
        assert "no loss whose gradient differs from pixel to pixel" in page.text


class TestSafety:
    @pytest.fixture(scope="class")
    def hostile(self, tmp_path_factory) -> Path:
        pairs = [pair(n, strength=0.1 + n / 20, id=id) | {"camera": id} for n, id in enumerate(HOSTILE)]
        bad = [CORRUPT | {"id": f"{id} broken"} for id in HOSTILE]
        run = audit_runs.score(tmp_path_factory.mktemp("hostile"), [*pairs, *bad])
        report(run)
        return run

    def test_data_makes_no_elements_and_no_handlers(self, hostile):
        page = Elements(page_of(hostile))
        assert len(page.of("script")) == len(page.of("style")) == 1
        assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
        assert all(attributes["src"].startswith("data:image/webp;") for attributes in page.of("img"))
        assert all(href.startswith("#") or href == "data:," for href in page.attributes("href"))
        assert not page.attributes("style")

    def test_ids_are_told_literally(self, hostile):
        page = Elements(page_of(hostile))
        for id in HOSTILE:
            assert literal(id) in page.text
        assert "\u202e" not in page.text
        assert "\x1b" not in page.text

    def test_policy_admits_our_style_and_script_alone(self, hostile):
        content = page_of(hostile)
        policy = next(meta["content"] for meta in Elements(content).of("meta") if "http-equiv" in meta)
        for kind in ("style", "script"):
            (text,) = re.findall(f"<{kind}>(.*?)</{kind}>", content, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "unsafe" not in policy

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\tb", "a\\tb"),
            ("\u202ex", "\\u202ex"),
            ("\ud800", "\\ud800"),
            ("ünï", "ünï"),
            ("x" * 500, "x" * 240 + "…"),
        ],
    )
    def test_literal(self, text, shown):
        assert literal(text) == shown

    def test_lone_surrogates_do_not_stop_the_page(self):
        assert encode("<p>\ud800</p>") == b"<p>\\ud800</p>"


class TestMissing:
    def test_images_that_have_moved_away(self, run, tmp_path):
        moved = self.moved(run, tmp_path)
        (tmp_path / "in.parquet").unlink()
        page = report(moved)
        assert not page.of("img")
        assert "in.parquet is no longer there" in page.text
        assert "No pictures" in page.text
        assert "FileNotFoundError" not in page.text, "the notice gives the reason, once"
        assert "pair/19" in page.text

    def test_missing_pictures_are_one_loud_line(self, run, tmp_path, capsys):
        moved = self.moved(run, tmp_path)
        (tmp_path / "in.parquet").unlink()
        report(moved)
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"warning: (\d+) of \1 pairs have no pictures: .*in.parquet is no longer there\. .*", line)
        assert "--input=PATTERN says where they are now" in line

    def test_input_says_where_the_images_are_now(self, run, tmp_path, capsys):
        moved = self.moved(run, tmp_path)
        (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
        (tmp_path / "in.parquet").rename(tmp_path / "elsewhere" / "deep" / "in.parquet")
        shutil.copyfile(run.parent / "run.parquet", tmp_path / "elsewhere" / "other.parquet")
        page = report(moved, f"--input={tmp_path}/elsewhere/**.parquet")
        assert capsys.readouterr().err == ""
        assert "no longer there" not in page.text
        assert "has changed" not in page.text
        assert len(page.of("img")) == 5 * len([1 for attributes in page.of("tr") if "data-title" in attributes])

    def test_an_input_that_matches_nothing_is_refused(self, run, tmp_path, capsys):
        assert main(["report", str(run), f"--input={tmp_path}/none-*.parquet", f"--output={tmp_path}/x.html"]) == 2
        assert "matches no file" in capsys.readouterr().err

    def test_images_that_are_there_are_not_said_to_be_missing(self, tmp_path):
        page = report(audit_runs.score(tmp_path / "[a-b] *", [pair(1)]))
        assert "no longer there" not in page.text
        assert "has changed" not in page.text
        assert len(page.of("img")) == 5

    def test_other_pairs_in_their_place(self, run, tmp_path):
        moved = self.moved(run, tmp_path)
        shards.write_parquet(tmp_path / "in.parquet", pa.Table.from_pylist([pair(n, id=f"new/{n}") for n in range(20)]))
        page = report(moved)
        assert "in.parquet has changed since the run" in page.text
        assert "another pair is there now" in page.text
        assert "the file no longer has this record" in page.text
        assert not page.of("img")

    def test_network_that_is_not_here(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
        identity = json.loads((run / "run.json").read_text())["identity"]
        changed = identity | {"objective": "lpips_vgg", "weights": {"vgg16_lpips": "0" * 64}}
        page = report(audit_runs.copy_run(run, tmp_path / "run", identity=changed))
        assert "The gradient of lpips_vgg is not shown" in page.text
        assert "`pairloss weights` fetches it" in page.text
        assert len(page.of("img")) == 4 * len([1 for attributes in page.of("tr") if "data-title" in attributes])

    def test_run_without_success(self, run, tmp_path, capsys):
        unfinished = audit_runs.copy_run(run, tmp_path / "run", status="running")
        (unfinished / "_SUCCESS").unlink()
        assert main(["report", str(unfinished)]) == 2
        assert "has not ended" in capsys.readouterr().err

    def test_nothing_scored(self, tmp_path):
        page = report(audit_runs.score(tmp_path, [CORRUPT]))
        assert "No pair was scored." in page.text
        assert "100 % of the pairs read" in page.text

    @staticmethod
    def moved(run: Path, tmp_path: Path) -> Path:
        """The run as if it had read `in.parquet`."""
        path = tmp_path / "in.parquet"
        shutil.copyfile(run.parent / "run.parquet", path)
        moved = tmp_path / "run"
        shutil.copytree(run, moved)
        for name in ("run.json", "summary.json"):
            text = (moved / name).read_text().replace(str(run.parent / "run.parquet"), str(path))
            (moved / name).write_text(text)
        return moved


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (number, 0.123456, "0.1235"),
        (number, 1234567, "1,234,567"),
        (number, None, "–"),  # noqa: RUF001
        (number, np.nan, "–"),  # noqa: RUF001
        (percent, 1e-7, "1e-05 %"),
        (percent, None, "–"),  # noqa: RUF001
    ],
)
def test_numbers_for_people(function, value, text):
    assert function(value) == text
