"""Summaries of scored pairs that merge exactly, and the end of a run."""
