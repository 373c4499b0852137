"""A run's files, local or `gs://`: where they lie, how they are written whole, what goes wrong."""
