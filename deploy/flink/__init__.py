"""A Flink session cluster on this machine, without Docker."""
