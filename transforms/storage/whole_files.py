"""Read a whole file, local or in a store."""

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


def read_file(path: str) -> bytes:
    """The content of a file as it is. Raises `storage.errors.READ_ERRORS`."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        content: bytes = file.read()
    return content
