"""The same pairs as image files: two folders, a zip file and a tar."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from support import shards
from support.tars import write_tar

SIDES = ("generated", "target")


def write_containers(root: Path, pairs: Sequence[Mapping[str, str | bytes]]) -> None:
    """Write pairs with `id`, `generated` and `target` as files below a directory; `flags` reads them."""
    files = [(pair["id"], side, pair[side]) for pair in pairs for side in SIDES]
    for name, side, image in files:
        shards.write(root / side / f"{name}.png", image)
    with zipfile.ZipFile(root / "both.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, side, image in files:
            archive.writestr(f"{side}/{name}.png", image)
    write_tar(root / "pairs.tar", [(f"{name}.{side}.png", image) for name, side, image in files])


def flags(root: object, container: str) -> tuple[str, ...]:
    """The flags that read a container: `folders`, `zip` or `tar`."""
    if container == "tar":
        return (f"--input={root}/pairs.tar",)
    inside = f"{root}/both.zip" if container == "zip" else root
    return tuple(f"--{side}={inside}/{side}" for side in SIDES)
