"""The README and the pages tell the truth: every flag, loss, preset, reason, link and command in them exists."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from support.pictures import noise

from benchmarks.docs_tables import TABLES, filled
from pipeline.audit.__main__ import VERBS
from pipeline.audit.judging.rules import parse_rules, rules_schema
from pipeline.cli import COMMANDS
from pipeline.engines.engine import beam_options
from pipeline.parse import parse
from transforms.losses.catalog import LOSSES
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.scoring.score import load_evaluator

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}

# Indented, in a sentence, or as a step of a workflow.
_COMMAND = re.compile(r"(?:^ {4,}|`|run: )(?:\S*/bin/)?pairloss ((?:[^`\n\\]|\\\n)+)", re.MULTILINE)
# Names that a reader replaces, and what the tests put in their place.
_PLACES = {"...": "x", "$HOME": "/home/me", "$IMAGE": "image", "VERB": "gate"}


def blocks(text: str, language: str) -> list[str]:
    """The fenced code of the text in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The arguments of every `pairloss` command in the text."""
    found = []
    for line in _COMMAND.findall(text):
        for name, value in _PLACES.items():
            line = line.replace(name, value)
        found.append(shlex.split(line.replace("\\\n", " "), comments=True))
    return found


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_there_is_one_name_for_the_command():
    assert re.findall(r"python -m pipeline\.(?:run|audit)\b", "".join(TEXTS.values())) == [
        "python -m pipeline.run",
        "python -m pipeline.audit",
    ]


@pytest.mark.parametrize("page", TEXTS)
def test_tables_are_as_the_program_has_them(page):
    assert filled(TEXTS[page]) == TEXTS[page], "`make docs` writes them"


def test_every_table_is_on_a_page():
    shown = re.findall(r"<!-- table: (\w+) -->", "".join(TEXTS.values()))
    assert sorted(shown) == sorted(TABLES)


def test_options_are_all_flags_of_the_program(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    flags = set(re.findall(r"^  (?:-h, )?(--\w+)", capsys.readouterr().out, flags=re.MULTILINE))
    documented = re.findall(r"^\| `(--\w+)`", TEXTS["docs/options.md"], flags=re.MULTILINE)
    assert sorted(documented) == sorted(flags)


def test_losses_of_the_readme_are_in_the_catalogue():
    (section,) = re.findall(r"^## Losses\n(.*?)^## ", TEXTS["README.md"], re.MULTILINE | re.DOTALL)
    named = re.findall("`(.+?)`", "".join(re.findall(r"^\|.*\|$", section, re.MULTILINE)))
    assert len(named) > 10
    assert set(named) <= LOSSES.keys()


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / name if name else ROOT / page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("page", TEXTS)
def test_files_named_on_a_page_exist(page):
    for name in re.findall(r"`((?:transforms|pipeline|pairloss|tests|deploy|benchmarks)/[\w./]+)`", TEXTS[page]):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [page for page in TEXTS if page.startswith("docs/")])
def test_the_readme_links_every_page(page):
    assert f"]({page})" in TEXTS["README.md"]


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if commands(text)])
def test_commands_are_accepted(page, capsys):
    for command, *arguments in commands(TEXTS[page]):
        assert command in COMMANDS, arguments
        if command == "audit" and arguments:
            check_audit(arguments, capsys)
        elif command == "run" and any(argument.startswith("--output") for argument in arguments):
            given = (
                arguments if re.search("--(input|generated)[= ]", " ".join(arguments)) else ["--input=x", *arguments]
            )
            beam_options(parse(given).beam_flags)


def check_audit(arguments: list[str], capsys) -> None:
    """A verb that exists, with flags that it has."""
    verb, *rest = arguments
    assert verb in VERBS
    with pytest.raises(SystemExit):
        importlib.import_module(f"pipeline.audit.{verb}").main(["--help"])
    known = re.findall(r"--\w+", capsys.readouterr().out)
    assert {argument.partition("=")[0] for argument in rest if argument.startswith("--")} <= {*known}


def test_objectives_parse():
    quoted = re.findall(r"PairLoss\(\"(.+?)\"\)|--objective='(.+?)'", "".join(TEXTS.values()))
    assert len(quoted) > 3
    for texts in quoted:
        parse_objective("".join(texts))


def test_rules_are_accepted():
    rules, _workflow = blocks(TEXTS["docs/rules.md"], "yaml")
    assert parse_rules(rules, "rules.yaml")


def test_keys_of_rules_are_those_of_the_schema():
    table = TEXTS["docs/rules.md"].partition("| key | meaning | default |\n|---|---|---|\n")[2].partition("\n\n")[0]
    documented = [name for row in table.splitlines() for name in row.split(" | ")[0].strip("| ").split(", ")]
    kinds = [entry["then"] for entry in rules_schema()["properties"]["rules"]["items"]["allOf"]]
    keys = {key for kind in kinds for key in kind["properties"]} - {"rule"}
    assert sorted(documented) == sorted(f"`{key}`" for key in keys)


def test_the_demo_ends_with_the_link_of_its_report(monkeypatch):
    # Under `make test` this make would otherwise be a part of that one.
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    command = ["make", "--dry-run", "--no-print-directory", "demo"]
    dry = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = dry.stdout.replace("\\\n", " ").splitlines()
    *_, run, report, link = [shlex.split(line) for line in lines]
    config = parse(run[2:])
    assert parse_rules((ROOT / config.gate).read_text(), config.gate)
    assert report[1:4] == ["audit", "report", config.output]
    path = ROOT / config.output / "report.html"
    told = subprocess.run([sys.executable, *link[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == f"report: {path.as_uri()}\n"


@pytest.mark.heavy
def test_the_python_page_runs(tmp_path, monkeypatch):
    """Its blocks continue each other."""
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks(TEXTS["docs/python.md"], "python")), {})


class TestImageGradientLosses:
    """The samples give what the pipeline gives."""

    TEXT = TEXTS["docs/image_gradient_losses.md"]

    @pytest.fixture(scope="class")
    def samples(self):
        names = {}
        for block in blocks(self.TEXT, "python"):
            exec(block, names)
        return names

    @pytest.fixture(scope="class")
    def images(self):
        return np.stack([noise(seed, 32, 48) for seed in (1, 2)]), np.stack([noise(seed, 32, 48) for seed in (3, 4)])

    def tensors(self, images):
        return (tf.constant(image, tf.float32) / 255 for image in images)

    def check(self, images, objective, loss, gradient):
        plan = Plan((), parse_objective(objective), pixel_gradient=True)
        columns = load_evaluator(plan)(*images)
        np.testing.assert_allclose(loss, columns["objective"], rtol=1e-5)
        norms = np.linalg.norm(np.reshape(gradient, (len(gradient), -1)), axis=1)
        np.testing.assert_allclose(norms, columns["pixel_grad_l2"], rtol=1e-4)

    def test_edges(self, samples, images):
        self.check(images, "sobel_l1", *samples["l1_edge_loss"](*self.tensors(images)))

    def test_features_and_forward_differences(self, samples, images):
        # The pixels are the features, so that no network is needed.
        result = samples["feature_and_edge_loss"](*self.tensors(images), features=lambda images: images)
        self.check(images, "mse + 0.1*fd_l2", *result)

    def test_features_and_sobel(self, samples, images):
        result = samples["vgg_and_sobel_loss"](*self.tensors(images), features=lambda images: images)
        self.check(images, "mse + 0.05*sobel_l2", *result)


def test_hooks_run_the_tools_of_the_environment():
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in settings["repos"] for hook in repository["hooks"]]
    assert {hook["entry"].split()[0] for hook in hooks} == {".venv/bin/ruff", ".venv/bin/mypy"}
