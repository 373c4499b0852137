"""Shared by the tests of nightly audits by cron and by Airflow."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SCHEDULE = REPOSITORY / "deploy" / "schedule"
PAIRS = 40
RULES = """
rules:
  - {rule: pairs, min: 30}
  - {rule: pair_limit, column: mae, max: 0.1}
  - {rule: drift, column: mae, distance: ks, max: 0.2}
"""
