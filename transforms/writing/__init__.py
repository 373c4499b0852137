"""A chunk's output files: metrics, failures, optimized images."""
