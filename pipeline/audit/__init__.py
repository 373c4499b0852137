"""What reads finished runs: gates, reports, trends. `python -m pipeline.audit VERB`."""
