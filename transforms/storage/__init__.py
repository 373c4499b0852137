"""A run's files, local or `gs://`: where they lie, how they are written whole, and their errors."""
