"""The audit of finished runs: gates, reports, trends. `pairloss audit VERB`."""
