"""An audit every night, for Airflow 3: the steps of nightly_audit.sh as tasks, in the same directories.

The exit code of each command decides: after 1 (it broke off), a retry goes on where it ended; 2 (a wrong request) fails
at once; 3 (the gate failed) is a verdict, which the last task turns into the state of the whole. Neither
BeamRunPythonPipelineOperator nor BashOperator can do that: they raise the same error for every code except 0. When a
task is killed, the former also leaves the launcher alive, so that the retry would start a second one beside it.
"""

import os
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Context, ObjectStoragePath, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from notify_webhook import post

OK, USAGE, REFUSED = 0, 2, 3
WEBHOOK_SECONDS = 10
REQUIRED = ("AUDIT_INPUT", "AUDIT_RULES", "AUDIT_DIR")

if missing := [name for name in REQUIRED if not os.environ.get(name)]:
    raise ValueError(f"{', '.join(missing)} not set in Airflow's environment; see deploy/schedule/README.md")

# With the logical date, every retry of a night has the same output directory, so that it resumes. A run that was
# triggered by hand may have no logical date.
NIGHT = "{{ logical_date | default(dag_run.run_after, true) | ds }}"
DIR = os.environ["AUDIT_DIR"].rstrip("/")
RUN = f"{DIR}/runs/{NIGHT}"


class PairlossOperator(BaseOperator):
    """Runs `PYTHON -m ARGUMENTS`, a command of pairloss, and returns its exit code.

    Raises:
        AirflowFailException: the request was wrong, so that a retry would not help.
        AirflowException: it broke off.
    """

    template_fields = ("arguments", "unless")

    def __init__(self, *, arguments: Sequence[str], ends: Sequence[int] = (OK,), unless: str = "", **settings):
        """Keep the settings.

        Args:
            arguments: module and arguments; those that render to nothing are left out.
            ends: the exit codes that mean that the work is done.
            unless: a file; if it exists, the work is done already.
            settings: the settings that every operator takes.
        """
        super().__init__(**settings)
        self.arguments = arguments
        self.ends = ends
        self.unless = unless

    @cached_property
    def hook(self) -> SubprocessHook:
        return SubprocessHook()

    def execute(self, context: Context) -> int:
        if self.unless and ObjectStoragePath(self.unless).exists():
            self.log.info("nothing to do: %s exists", self.unless)
            return OK
        command = [os.environ.get("PYTHON", "python3"), "-m", *filter(None, self.arguments)]
        # The webhook's address is a secret: only the task that posts to it may see it.
        environment = {name: value for name, value in os.environ.items() if name != "AUDIT_WEBHOOK_URL"}
        code = self.hook.run_command(command, environment).exit_code
        if code in self.ends:
            return code
        error = AirflowFailException if code in (USAGE, REFUSED) else AirflowException
        raise error(f"exit code {code} of {shlex.join(command)}")

    def on_kill(self) -> None:
        self.hook.send_sigterm()


@task
def find_baseline(night: str) -> str:
    """Return the flag that names the last good night before this one; empty: there is none."""
    kept = ObjectStoragePath(DIR) / "baselines"
    earlier = [path.name for path in kept.glob("????-??-??.json") if path.name < f"{night}.json"]
    return f"--baseline={DIR}/baselines/{max(earlier)}" if earlier else ""


@task
def notify(run: str) -> None:
    """Post the verdict to the webhook."""
    url = os.environ.get("AUDIT_WEBHOOK_URL")
    if not url:
        raise AirflowSkipException("AUDIT_WEBHOOK_URL is not set")
    problem = post(url, (ObjectStoragePath(run) / "verdict.json").read_bytes(), WEBHOOK_SECONDS)
    if problem:
        raise AirflowException(f"the webhook did not get the verdict: {problem}")


@task(trigger_rule=TriggerRule.ALL_DONE)
def gate(verdict: int | None, run: str, night: str) -> None:
    """Keep the night as a baseline, or fail if the gate failed. A failed report or webhook changes nothing."""
    kept = ObjectStoragePath(DIR) / "baselines" / f"{night}.json"
    if verdict is None:
        raise AirflowFailException("the gate gave no verdict")
    if verdict != OK:
        # An earlier judgement, by other rules, may have kept it.
        kept.unlink(missing_ok=True)
        raise AirflowFailException("the gate failed")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes((ObjectStoragePath(run) / "summary.json").read_bytes())


@dag(
    dag_id="pairloss_audit",
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
)
def pairloss_audit():
    """Score tonight's pairs, judge them by rules and against the last good night, report, and call a webhook."""
    flags = shlex.split(os.environ.get("AUDIT_FLAGS", ""))
    score = PairlossOperator(
        task_id="score",
        arguments=[
            "pipeline.run",
            f"--input={os.environ['AUDIT_INPUT']}",
            f"--output={RUN}",
            "--quiet=true",
            *flags,
        ],
        # A run that scored nothing has ended too; the gate reports it.
        ends=(OK, REFUSED),
        unless=f"{RUN}/_SUCCESS",
        execution_timeout=timedelta(hours=6),
    )
    baseline = find_baseline(NIGHT)
    rules = f"--rules={os.environ['AUDIT_RULES']}"
    judge = PairlossOperator(
        task_id="judge", arguments=["pipeline.audit", "gate", RUN, rules, baseline], ends=(OK, REFUSED)
    )
    report = PairlossOperator(task_id="report", arguments=["pipeline.audit", "report", RUN, baseline])
    score >> judge >> [report, notify(RUN)] >> gate(judge.output, RUN, NIGHT)


pairloss_audit()
