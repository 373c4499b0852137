"""A run's files, local, `gs://` or `s3://`: where they lie, how they are written whole, and their errors."""

# Beam finds the file system of `s3://` once it is imported.
import transforms.storage.s3  # noqa: F401
