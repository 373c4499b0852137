"""The worker process: its threads, its counters, its import of TensorFlow."""
