"""Small real runs, for tests of the audit."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.run import main

LOSSES = "mae,ssim,psnr"
HEIGHT, WIDTH = 40, 56


def pair(number: int, strength: float = 0.1, id: str = "") -> dict[str, Any]:
    """A pair whose generated image is the target blended with noise; at strength 0 they are identical."""
    target = smooth(HEIGHT, WIDTH, shift=number)
    mixed = (1 - strength) * target + strength * noise(number, HEIGHT, WIDTH)
    return {
        "id": id or f"pair/{number}",
        "generated": encode(mixed.round().astype(np.uint8)),
        "target": encode(target),
        "camera": f"camera {number % 3}",
    }


def score(
    directory: Path, pairs: Iterable[Mapping[str, Any]], name: str = "run", *flags: str, suffix: str = ".parquet"
) -> Path:
    """Write the pairs to `<name>.parquet`, or as TFRecord, and score them; return the run's directory."""
    source, output = directory / f"{name}{suffix}", directory / name
    rows = [dict(pair) for pair in pairs]
    if suffix == ".parquet":
        shards.write_parquet(source, pa.Table.from_pylist(rows))
    else:
        shards.write_tfrecord(source, rows)
    # --input is a pattern, so a wildcard character in the path becomes `?`, which matches it.
    pattern = re.sub(r"[\[\]*?]", "?", str(source))
    arguments = [f"--input={pattern}", f"--output={output}", f"--losses={LOSSES}", "--keep_fields=camera", "--quiet"]
    assert main([*arguments, *flags]) in (0, 3)
    return output


def copy_run(run: Path, to: Path, **changes: Any) -> Path:
    """Copy the run to another path, with some entries of its run.json replaced."""
    shutil.copytree(run, to)
    record = json.loads((to / "run.json").read_text())
    (to / "run.json").write_text(json.dumps(record | changes))
    return to


class Elements(HTMLParser):
    """The elements of an HTML page and its visible text."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data

    def attributes(self, name: str) -> list[str]:
        """All values of an attribute on the page."""
        return [attributes[name] or "" for _, attributes in self.found if name in attributes]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element with this tag."""
        return [attributes for found, attributes in self.found if found == tag]
