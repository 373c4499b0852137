"""Small tar files."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path


def write_tar(path: Path, content: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """Write a tar of these names and bytes, in this order."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
