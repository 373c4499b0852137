"""The nightly audit as cron starts it: nights with real pictures, the order of the steps, and webhooks."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from support import shards
from support.audit_runs import pair
from support.nights import PAIRS, REPOSITORY, RULES, SCHEDULE
from support.webhooks import SECRET, refused_webhook, silent_webhook, webhook

SETTINGS_READERS = ("nightly_audit.sh", "notify_webhook.py", "airflow_dag.py")
TWO_DRIFTS = f"{RULES}  - {{rule: drift, column: ssim, distance: wasserstein, max: 0.2}}\n"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of this process without the settings of an audit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    return {**kept, "PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY), "no_proxy": "127.0.0.1"}


def start(environment: dict[str, str], *flags: str, **settings: object) -> subprocess.CompletedProcess[str]:
    settings = {name: str(value) for name, value in settings.items()}
    command = ["bash", str(SCHEDULE / "nightly_audit.sh"), *flags]
    return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
class TestNights:
    """Four nights with real pictures, in order; each test looks at one of them."""

    @pytest.fixture(scope="class")
    def nights(self, tmp_path_factory, environment):
        """The directory of the audits, and each night's process and webhook posts."""
        directory = tmp_path_factory.mktemp("nights")
        (directory / "rules.yaml").write_text(TWO_DRIFTS)
        audits, source = directory / "audits", directory / "pairs.parquet"
        settings = {"AUDIT_INPUT": source, "AUDIT_RULES": directory / "rules.yaml", "AUDIT_DIR": audits}
        ended, posted = {}, {}

        def night(name: str, date: str, receivers) -> None:
            with receivers() as receiver:
                ended[name] = start(
                    environment,
                    "--losses=mae,ssim",
                    "--keep_fields=camera",
                    **settings,
                    AUDIT_NIGHT=date,
                    # A webhook that answers may take long to do so on a busy machine.
                    AUDIT_WEBHOOK_SECONDS=1 if receivers is silent_webhook else 60,
                    AUDIT_WEBHOOK_URL=receiver.url,
                )
                posted[name] = receiver.received

        pairs = [pair(number) for number in range(PAIRS)]
        shards.write_parquet(source, pa.Table.from_pylist(pairs))
        night("first", "2026-01-30", refused_webhook)
        night("same", "2026-01-31", webhook)
        for number in (7, 23):
            pairs[number] = pair(number, strength=0.8)
        shards.write_parquet(source, pa.Table.from_pylist(pairs))
        night("degraded", "2026-02-01", silent_webhook)
        # Without its input the night cannot score again.
        source.unlink()
        night("again", "2026-02-01", webhook)
        return audits, ended, posted

    @staticmethod
    def results(audits: Path, date: str) -> dict[str, dict[str, object]]:
        verdict = json.loads((audits / "runs" / date / "verdict.json").read_text())
        return {result["what"]: result for result in verdict["results"]}

    def test_first_night_has_no_baseline_and_leaves_one(self, nights):
        audits, ended, _ = nights
        assert ended["first"].returncode == 0, ended["first"].stderr
        drift = self.results(audits, "2026-01-30")["drift of mae, ks"]
        assert (drift["outcome"], drift["reason"]) == ("skipped", "no baseline")
        kept = audits / "baselines" / "2026-01-30.json"
        assert kept.read_bytes() == (audits / "runs" / "2026-01-30" / "summary.json").read_bytes()

    def test_same_data_has_not_drifted(self, nights):
        audits, ended, _ = nights
        assert ended["same"].returncode == 0, ended["same"].stderr
        drifts = [result for what, result in self.results(audits, "2026-01-31").items() if what.startswith("drift")]
        assert [(drift["value"], drift["outcome"]) for drift in drifts] == [(0.0, "pass")] * 2

    def test_degraded_pairs_fail_and_the_baseline_stays(self, nights):
        audits, ended, _ = nights
        assert ended["degraded"].returncode == 3, ended["degraded"].stderr
        assert "FAIL" in ended["degraded"].stdout
        examples = self.results(audits, "2026-02-01")["pairs with mae > 0.1"]["examples"]
        assert {example["id"] for example in examples} == {"pair/7", "pair/23"}
        assert sorted(path.name for path in (audits / "baselines").iterdir()) == ["2026-01-30.json", "2026-01-31.json"]

    def test_every_night_has_a_report(self, nights):
        audits, _, _ = nights
        for run in (audits / "runs").iterdir():
            assert "<html" in (run / "report.html").read_text()

    def test_started_again(self, nights):
        audits, ended, posted = nights
        assert ended["again"].returncode == 3, ended["again"].stderr
        assert f"{audits}/runs/2026-02-01 is scored already" in ended["again"].stderr
        (verdict,) = posted["again"]
        assert verdict["baseline"] == f"{audits}/baselines/2026-01-31.json"

    def test_the_webhook_gets_the_verdict(self, nights):
        audits, _, posted = nights
        assert posted["same"] == [json.loads((audits / "runs" / "2026-01-31" / "verdict.json").read_text())]
        assert posted["again"][0]["verdict"] == "fail"

    @pytest.mark.parametrize(
        ("night", "why"), [("first", "ConnectionRefusedError"), ("degraded", "no answer within 1 s")]
    )
    def test_a_dead_webhook_is_one_warning(self, nights, night, why):
        _, ended, _ = nights
        warnings = [line for line in ended[night].stderr.splitlines() if "webhook" in line]
        assert warnings == [f"warning: the webhook did not get the verdict: {why}"]

    def test_the_secret_is_nowhere(self, nights):
        audits, ended, _ = nights
        assert not [night for night in ended.values() if SECRET in night.stdout + night.stderr]
        assert not [path for path in audits.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


class TestSteps:
    """The order of the steps and their arguments, with a PYTHON that only records its calls."""

    STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$AUDIT_DIR/calls"
[[ -z ${AUDIT_WEBHOOK_URL:-} ]] || echo told >> "$AUDIT_DIR/calls"
run=$AUDIT_DIR/runs/$AUDIT_NIGHT
case "$*" in
  *pipeline.run*)
    mkdir -p "$run"
    echo "$AUDIT_NIGHT" > "$run/summary.json"
    [[ $RUN_CODE != 0 ]] || touch "$run/_SUCCESS"
    exit "$RUN_CODE"
    ;;
  *'audit gate'*)
    echo "$GATE_CODE" > "$run/verdict.json"
    exit "$GATE_CODE"
    ;;
  *'audit report'*) exit "$REPORT_CODE" ;;
  *notify_webhook.py*) exit "$NOTIFY_CODE" ;;
esac
"""

    @pytest.fixture
    def night(self, tmp_path, environment):
        """A function that starts a night and returns its exit code and the steps it called."""
        stub = tmp_path / "stub python"
        stub.write_text(self.STUB)
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "rules.yaml").touch()
        audits = tmp_path / "the audits"
        settings = {"AUDIT_INPUT": "in put-*.parquet", "AUDIT_RULES": tmp_path / "rules.yaml", "AUDIT_DIR": audits}
        settings |= {"PYTHON": stub, "RUN_CODE": 0, "GATE_CODE": 0, "REPORT_CODE": 0, "NOTIFY_CODE": 0}

        def start_night(*flags: str, date: str = "2026-01-31", **more: object) -> tuple[int, list[str]]:
            (audits / "calls").unlink(missing_ok=True)
            ended = start(environment, *flags, **{**settings, "AUDIT_NIGHT": date, **more})
            calls = (audits / "calls").read_text().replace(f"{tmp_path}/", "").splitlines()
            return ended.returncode, calls

        start_night.audits = audits
        return start_night

    def test_what_each_is_told(self, night):
        night(date="2026-01-30")
        code, calls = night("--losses=mae", "--keep_fields=a, b", AUDIT_WEBHOOK_URL="https://x")
        run, baseline = "the audits/runs/2026-01-31", "--baseline=the audits/baselines/2026-01-30.json"
        assert code == 0
        assert calls[:3] == [
            f"-m pipeline.run --input=in put-*.parquet --output={run} --quiet=true --losses=mae --keep_fields=a, b",
            f"-m pipeline.audit gate {run} --rules=rules.yaml {baseline}",
            f"-m pipeline.audit report {run} {baseline}",
        ]
        # Only the last step gets the address, and not as an argument.
        assert calls[3].endswith(f"/deploy/schedule/notify_webhook.py {run}/verdict.json")
        assert calls[4:] == ["told"]

    @pytest.mark.parametrize(
        ("codes", "code", "steps", "kept"),
        [
            ({}, 0, ["run", "gate", "report"], True),
            ({"RUN_CODE": 1}, 1, ["run"], False),
            ({"RUN_CODE": 2}, 2, ["run"], False),
            ({"RUN_CODE": 137}, 137, ["run"], False),
            ({"RUN_CODE": 3, "GATE_CODE": 3}, 3, ["run", "gate", "report"], False),
            ({"GATE_CODE": 1}, 1, ["run", "gate"], False),
            ({"GATE_CODE": 2}, 2, ["run", "gate"], False),
            ({"GATE_CODE": 3}, 3, ["run", "gate", "report"], False),
            ({"REPORT_CODE": 1}, 0, ["run", "gate", "report"], True),
            ({"REPORT_CODE": 1, "GATE_CODE": 3}, 3, ["run", "gate", "report"], False),
        ],
        ids=str,
    )
    def test_exit_codes(self, night, codes, code, steps, kept):
        ended, calls = night(**codes)
        assert (ended, [re.findall(r"run|gate|report", call)[0] for call in map(self.step, calls)]) == (code, steps)
        assert (night.audits / "baselines" / "2026-01-31.json").exists() == kept

    @staticmethod
    def step(call: str) -> str:
        return call.removeprefix("-m pipeline.").removeprefix("audit ")

    def test_the_newest_earlier_baseline(self, night):
        dates = ["2025-12-31", "2026-01-02", "2026-01-09", "2026-01-05"]
        baselines = []
        for date in dates:
            _, calls = night(date=date)
            baselines.append(re.findall(r"baselines/(.*)\.json", calls[-1]))
        assert baselines == [[], ["2025-12-31"], ["2026-01-02"], ["2026-01-02"]]

    def test_what_broke_off_goes_on(self, night):
        assert night(RUN_CODE=1)[0] == 1
        code, calls = night()
        assert (code, len(calls)) == (0, 3)

    def test_judged_again_by_other_rules(self, night):
        night(date="2026-01-30")
        baseline = night.audits / "baselines" / "2026-01-31.json"
        for gate in (0, 3, 0):
            code, calls = night(GATE_CODE=gate)
            assert code == gate
            assert calls[-1].endswith("baselines/2026-01-30.json")
            assert baseline.exists() == (gate == 0)

    def test_a_verdict_is_delivered_once(self, night):
        def told(**codes: int) -> bool:
            return "told" in night(AUDIT_WEBHOOK_URL="https://x", **codes)[1]

        assert told(NOTIFY_CODE=1)
        assert told()
        assert not told()
        assert told(GATE_CODE=3)
        assert not told(GATE_CODE=3)

    def test_the_night_is_today(self, night):
        night(AUDIT_NIGHT="")
        (run,) = (night.audits / "runs").iterdir()
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", run.name)


class TestWrongRequests:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"AUDIT_INPUT": ""}, "AUDIT_INPUT is not set; see --help"),
            ({"AUDIT_RULES": ""}, "AUDIT_RULES is not set; see --help"),
            ({"AUDIT_DIR": ""}, "AUDIT_DIR is not set; see --help"),
            ({"AUDIT_RULES": "none.yaml"}, "AUDIT_RULES=none.yaml cannot be read"),
            ({"AUDIT_DIR": "gs://bucket/audits"}, "AUDIT_DIR=gs://bucket/audits is not local"),
            ({"AUDIT_NIGHT": "../../etc"}, "AUDIT_NIGHT=../../etc is not a date such as 2026-01-31"),
            ({"AUDIT_DIR": __file__}, f"AUDIT_DIR={__file__} cannot be written to"),
        ],
    )
    def test_are_told_before_anything_is_scored(self, tmp_path, environment, settings, message):
        good = {"AUDIT_INPUT": "a.parquet", "AUDIT_RULES": __file__, "AUDIT_DIR": tmp_path, "PYTHON": "/bin/false"}
        ended = start(environment, **{**good, **settings})
        assert ended.returncode == 2
        assert ended.stderr.splitlines()[-1] == f"nightly_audit: error: {message}"

    def test_help(self, environment):
        ended = start(environment, "--help")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "AUDIT_RULES" in ended.stdout


class TestNotify:
    @pytest.fixture
    def notify(self, tmp_path, environment):
        verdict = tmp_path / "verdict.json"
        verdict.write_text(json.dumps({"verdict": "fail", "run": "ünï"}))

        def post(url: str, seconds: str = "60", path: Path = verdict) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(SCHEDULE / "notify_webhook.py"), str(path)]
            settings = {"AUDIT_WEBHOOK_URL": url, "AUDIT_WEBHOOK_SECONDS": seconds}
            return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, timeout=60)

        return post

    def test_delivers(self, notify):
        with webhook(status=204) as receiver:
            ended = notify(receiver.url)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        assert receiver.received == [{"verdict": "fail", "run": "ünï"}]

    @pytest.mark.parametrize("status", [302, 307, 404, 500])
    def test_any_other_answer(self, notify, status):
        with webhook(status) as receiver:
            ended = notify(receiver.url)
        assert ended.returncode == 1
        assert ended.stderr == f"warning: the webhook did not get the verdict: HTTP {status}\n"
        assert len(receiver.received) == 1

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            (f"http://127.0.0.1:{SECRET}/", "InvalidURL"),
            (f"http://127.0.0.1/a {SECRET}", "InvalidURL"),
            (f"http://[{SECRET}/", "ValueError"),
        ],
    )
    def test_errors_that_quote_the_address(self, notify, url, why):
        ended = notify(url)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == f"warning: the webhook did not get the verdict: {why}\n"

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"url": ""}, "usage: notify_webhook.py VERDICT.json"),
            ({"url": f"file:///{SECRET}"}, "usage: notify_webhook.py VERDICT.json"),
            ({"url": f"hooks.example.com/{SECRET}"}, "usage: notify_webhook.py VERDICT.json"),
            ({"seconds": "0"}, "error: AUDIT_WEBHOOK_SECONDS=0 is not a whole number from 1 to 600"),
            ({"seconds": "soon"}, "error: AUDIT_WEBHOOK_SECONDS=soon is not a whole number from 1 to 600"),
            ({"path": Path("none.json")}, "none.json"),
        ],
    )
    def test_wrong_requests(self, notify, changed, message):
        ended = notify(**{"url": f"http://127.0.0.1/{SECRET}", **changed})
        assert ended.returncode == 2
        assert message in ended.stderr
        assert SECRET not in ended.stderr


class TestFiles:
    def test_the_documented_variables_are_those_of_the_scripts(self):
        scripts = "".join((SCHEDULE / name).read_text() for name in SETTINGS_READERS)
        readme = (SCHEDULE / "README.md").read_text()
        assert set(re.findall(r"AUDIT_[A-Z]+(?:_[A-Z]+)?", readme)) == set(
            re.findall(r"AUDIT_[A-Z]+(?:_[A-Z]+)?", scripts)
        )

    def test_cron_lines(self):
        text = (SCHEDULE / "audit.cron").read_text()
        jobs = [line for line in text.splitlines() if re.match("[0-9*]", line)]
        assert jobs
        for job in jobs:
            *_, command = job.split(maxsplit=6)
            assert "%" not in command, "cron ends the command there"
            subprocess.run(["bash", "-n", "-c", command], check=True)
            (script,) = re.findall(r"/opt/pairloss/(\S+)", command)
            assert os.access(REPOSITORY / script, os.X_OK)

    def test_shellcheck(self):
        shellcheck = Path(sys.executable).parent / "shellcheck"
        subprocess.run([shellcheck, SCHEDULE / "nightly_audit.sh"], check=True)
