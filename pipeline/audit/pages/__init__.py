"""HTML pages about finished runs."""
