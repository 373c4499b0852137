"""Runs nights of deploy/schedule/airflow_dag.py in Airflow's environment: `python airflow_worker.py SCENARIOS RESULTS`.

SCENARIOS is a JSON file: a list of {"date": ..., "environment": {...}}. RESULTS is the JSON file to write: Airflow's
description of the DAG, and for each scenario the state of the run and the state and number of tries of each task.
Airflow runs the tasks in this process, by its own rules for states and retries, on a database of its own.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import BundleDagBag
from airflow.utils.db import initdb

DAG = "pairloss_audit"


def main(scenarios: Path, results: Path) -> None:
    """Run the scenarios one after the other."""
    initdb()
    told = {"nights": [night(**scenario) for scenario in json.loads(scenarios.read_text())], "dag": describe()}
    results.write_text(json.dumps(told))


def load() -> BundleDagBag:
    """Load the DAGs as Airflow's DAG processor does, with the current environment variables."""
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


def describe() -> dict[str, Any]:
    """Describe the DAG as Airflow sees it, and its import errors when the settings are missing."""
    bag = load()
    dag = bag.dags[DAG]
    tasks = {task.task_id: {"retries": task.retries, "next": sorted(task.downstream_task_ids)} for task in dag.tasks}
    errors = list(bag.import_errors.values())
    del os.environ["AUDIT_DIR"]
    without = list(load().import_errors.values())
    return {"dags": list(bag.dags), "errors": errors, "tasks": tasks, "catchup": dag.catchup, "without": without}


def night(date: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run the DAG for a logical date."""
    os.environ.update(environment)
    dag = load().dags[DAG]
    for task in dag.tasks:
        # dag.test() would sleep until the retry is due.
        task.retry_delay = timedelta(0)
    run = dag.test(logical_date=datetime.fromisoformat(date).replace(tzinfo=UTC))
    tasks = {task.task_id: [task.state, task.try_number] for task in run.get_task_instances()}
    return {"state": run.state, "tasks": tasks}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
