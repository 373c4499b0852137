"""The nightly audit as Airflow runs it, by its rules for states and retries: with real pictures and with a stub."""

import json
import os
import re
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import shards
from support.airflow_environment import airflow_python
from support.audit_runs import pair
from support.nights import PAIRS, REPOSITORY, RULES, SCHEDULE
from support.webhooks import SECRET, refused_webhook, webhook

from pipeline.engines.engine import beam_options
from pipeline.parse import parse

# Airflow's environment is 300 MB, and its nights take a minute.
pytestmark = pytest.mark.slow

FLAGS = (
    "--losses=mae,ssim --keep_fields='camera' --runner=FlinkRunner --flink_master=flink:8081 --flink_submit_uber_jar"
    " --environment_type=EXTERNAL --environment_config=localhost:50000"
)
# Records its arguments and exits with the step's next code; the last code repeats.
STUB = """#!/usr/bin/env bash
printf '%s\\t' "$@" >> "$AUDIT_DIR/calls"; echo >> "$AUDIT_DIR/calls"
[[ -z ${AUDIT_WEBHOOK_URL:-} ]] || echo told >> "$AUDIT_DIR/calls"
case "$*" in
  *pipeline.run*) step=score codes=$SCORE ;;
  *' gate '*) step=judge codes=$JUDGE ;;
  *) step=report codes=$REPORT ;;
esac
echo x >> "$AUDIT_DIR/$step.tries"
read -ra codes <<< "$codes"
tries=$(wc -l < "$AUDIT_DIR/$step.tries")
code=${codes[tries - 1]:-${codes[-1]}}
if [[ $step == score && $code == 0 ]]; then
  output=$(printf '%s\\n' "$@" | sed -n 's/^--output=//p')
  mkdir -p "$output"
  echo '{}' > "$output/summary.json"
fi
exit "$code"
"""
PASSED = ["success", 1]
STUBBED = {
    "passes": {},
    "breaks_off_once": {"SCORE": "1 0"},
    "breaks_off": {"SCORE": "1"},
    "killed_once": {"SCORE": "137 0"},
    "wrong_request": {"SCORE": "2"},
    "nothing_scored": {"SCORE": "3", "JUDGE": "3"},
    "gate_fails": {"JUDGE": "3"},
    "gate_breaks_once": {"JUDGE": "1 0"},
    "wrong_rules": {"JUDGE": "2"},
    "no_report": {"REPORT": "1"},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, Any]:
    """Run all nights of this file in one Airflow; return its report by the night's name, and the directories."""
    directory = tmp_path_factory.mktemp("airflow")
    (directory / "rules.yaml").write_text(RULES)
    stub = directory / "python"
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    good = [pair(number) for number in range(PAIRS)]
    shards.write_parquet(directory / "2026-01-30.parquet", pa.Table.from_pylist(good))
    bad = [pair(number, strength=0.8 if number in (7, 23) else 0.1) for number in range(PAIRS)]
    shards.write_parquet(directory / "2026-01-31.parquet", pa.Table.from_pylist(bad))
    with ExitStack() as stack:
        posted = stack.enter_context(webhook())
        dead = stack.enter_context(refused_webhook())
        real = {
            "AUDIT_DIR": str(directory / "audits"),
            "AUDIT_INPUT": f"{directory}/{{{{ ds }}}}.parquet",
            "AUDIT_FLAGS": "--losses=mae,ssim",
            "AUDIT_WEBHOOK_URL": posted.url,
            "PYTHON": sys.executable,
        }
        nights = {
            "good": {"date": "2026-01-30", "environment": real},
            "degraded": {"date": "2026-01-31", "environment": real},
            "again": {"date": "2026-01-30", "environment": {**real, "AUDIT_WEBHOOK_URL": dead.url}},
        }
        for name, codes in STUBBED.items():
            audits = directory / name
            kept = audits / "baselines" / "2026-02-01.json"
            kept.parent.mkdir(parents=True)
            kept.write_text("of an earlier judgement")
            settings = {"SCORE": "0", "JUDGE": "0", "REPORT": "0", **codes, "AUDIT_DIR": str(audits)}
            settings |= {"PYTHON": str(stub), "AUDIT_FLAGS": FLAGS, "AUDIT_WEBHOOK_URL": ""}
            nights[name] = {"date": "2026-02-01", "environment": settings}
        told = run(directory, nights)
    return {**told, "directory": directory, "posted": posted.received}


def run(directory: Path, nights: dict[str, Any]) -> dict[str, Any]:
    """Run the nights in an Airflow with a new database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUDIT_", "AIRFLOW"))}
    environment = {
        **kept,
        "AIRFLOW_HOME": str(directory / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(SCHEDULE),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AUDIT_RULES": str(directory / "rules.yaml"),
        "no_proxy": "127.0.0.1",
    }
    scenarios, results = directory / "scenarios.json", directory / "results.json"
    scenarios.write_text(json.dumps(list(nights.values())))
    worker = REPOSITORY / "tests" / "support" / "airflow_worker.py"
    command = [str(airflow_python()), str(worker), str(scenarios), str(results)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-5000:]
    told = json.loads(results.read_text())
    by_name = dict(zip(nights, told["nights"], strict=True))
    return {"dag": told["dag"], "nights": by_name, "log": ended.stdout + ended.stderr}


def calls(ran: dict[str, Any], name: str) -> list[list[str]]:
    """The arguments after -m of every call that a night made to the stub."""
    text = (ran["directory"] / name / "calls").read_text().replace(f"{ran['directory']}/", "")
    assert "told" not in text, "what scores gets to see the webhook's address"
    return [line.removesuffix("\t").split("\t")[1:] for line in text.splitlines()]


class TestDag:
    def test_loads(self, ran):
        assert (ran["dag"]["dags"], ran["dag"]["errors"], ran["dag"]["catchup"]) == (["pairloss_audit"], [], False)

    def test_tasks_and_what_follows_them(self, ran):
        assert ran["dag"]["tasks"] == {
            "score": {"retries": 2, "next": ["judge"]},
            "find_baseline": {"retries": 2, "next": ["judge", "report"]},
            "judge": {"retries": 2, "next": ["gate", "notify", "report"]},
            "report": {"retries": 2, "next": ["gate"]},
            "notify": {"retries": 2, "next": ["gate"]},
            "gate": {"retries": 2, "next": []},
        }

    def test_a_setting_that_is_missing_is_told(self, ran):
        (error,) = ran["dag"]["without"]
        assert "ValueError: AUDIT_DIR not set in Airflow's environment" in error


class TestNights:
    """Three runs on real pictures: a good night, a degraded one, and the good one again."""

    def test_good(self, ran):
        assert ran["nights"]["good"]["state"] == "success"
        assert set(map(tuple, ran["nights"]["good"]["tasks"].values())) == {("success", 1)}
        audits = ran["directory"] / "audits"
        run = audits / "runs" / "2026-01-30"
        assert "<html" in (run / "report.html").read_text()
        assert (audits / "baselines" / "2026-01-30.json").read_bytes() == (run / "summary.json").read_bytes()

    def test_degraded_fails_at_once_and_is_reported(self, ran):
        assert ran["nights"]["degraded"]["state"] == "failed"
        tasks = ran["nights"]["degraded"]["tasks"]
        assert tasks.pop("gate") == ["failed", 1]
        assert set(map(tuple, tasks.values())) == {("success", 1)}
        audits = ran["directory"] / "audits"
        assert [path.name for path in (audits / "baselines").iterdir()] == ["2026-01-30.json"]
        verdict = json.loads((audits / "runs" / "2026-01-31" / "verdict.json").read_text())
        assert verdict["baseline"] == f"{audits}/baselines/2026-01-30.json"
        assert "<html" in (audits / "runs" / "2026-01-31" / "report.html").read_text()

    def test_the_webhook_gets_the_verdicts(self, ran):
        assert [verdict["verdict"] for verdict in ran["posted"]] == ["pass", "fail"]

    def test_again_scores_nothing_and_a_dead_webhook_changes_nothing(self, ran):
        night = ran["nights"]["again"]
        assert night["state"] == "success"
        assert night["tasks"].pop("notify") == ["failed", 3]
        assert set(map(tuple, night["tasks"].values())) == {("success", 1)}
        assert f"nothing to do: {ran['directory']}/audits/runs/2026-01-30/_SUCCESS exists" in ran["log"]

    def test_the_secret_is_nowhere(self, ran):
        assert SECRET not in ran["log"]
        files = [path for path in (ran["directory"] / "audits").rglob("*") if path.is_file()]
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]


class TestExitCodes:
    @pytest.mark.parametrize(
        ("name", "state", "changed"),
        [
            ("passes", "success", {}),
            ("breaks_off_once", "success", {"score": ["success", 2]}),
            ("killed_once", "success", {"score": ["success", 2]}),
            ("gate_breaks_once", "success", {"judge": ["success", 2]}),
            ("no_report", "success", {"report": ["failed", 3]}),
            ("gate_fails", "failed", {"gate": ["failed", 1]}),
            ("nothing_scored", "failed", {"gate": ["failed", 1]}),
            ("breaks_off", "failed", {"score": ["failed", 3], **dict.fromkeys(("judge", "report", "notify"))}),
            ("wrong_request", "failed", {"score": ["failed", 1], **dict.fromkeys(("judge", "report", "notify"))}),
            ("wrong_rules", "failed", {"judge": ["failed", 1], **dict.fromkeys(("report", "notify"))}),
        ],
    )
    def test_states_and_tries(self, ran, name, state, changed):
        night = ran["nights"][name]
        expected = dict.fromkeys(("score", "find_baseline", "judge", "report", "gate"), PASSED) | {
            "notify": ["skipped", 1]
        }
        if state == "failed":
            expected["gate"] = ["failed", 1]
        never = {task: ["upstream_failed", 0] for task, told in changed.items() if told is None}
        assert night == {"state": state, "tasks": {**expected, **changed, **never}}

    @pytest.mark.parametrize("name", STUBBED)
    def test_what_is_kept_as_a_baseline(self, ran, name):
        kept = ran["directory"] / name / "baselines" / "2026-02-01.json"
        if STUBBED[name].get("JUDGE") == "3":
            assert not kept.exists()
        else:
            passed = ran["nights"][name]["state"] == "success"
            assert kept.read_text() == ("{}\n" if passed else "of an earlier judgement")


class TestCommands:
    def test_a_retry_has_the_same_output(self, ran):
        first, second, *_ = calls(ran, "breaks_off_once")
        assert first == second
        assert "--output=breaks_off_once/runs/2026-02-01" in first

    def test_the_program_accepts_them(self, ran):
        score, judge, report = calls(ran, "passes")
        assert score[0] == "pipeline.run"
        config = parse(score[1:])
        assert (config.input, config.output) == (("2026-02-01.parquet",), "passes/runs/2026-02-01")
        assert (config.plan.losses, config.fields.keep, config.quiet) == (("mae", "ssim"), ("camera",), True)
        assert beam_options(config.beam_flags).get_all_options()["flink_master"] == "flink:8081"
        # The nights with real pictures show that the program accepts the other two.
        assert judge == ["pipeline.audit", "gate", "passes/runs/2026-02-01", "--rules=rules.yaml"]
        assert report == ["pipeline.audit", "report", "passes/runs/2026-02-01"]

    def test_the_readme_names_the_version_that_is_tested(self):
        constraints = (Path(__file__).parents[1] / "data" / "airflow_constraints.txt").read_text()
        (version,) = re.findall(r"^apache-airflow==(\d+\.\d+)", constraints, re.MULTILINE)
        assert f"Airflow {version}" in (SCHEDULE / "README.md").read_text()
