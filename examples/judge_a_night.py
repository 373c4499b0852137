"""Judge a night: score yesterday's and tonight's pairs, and let a gate say whether tonight's may ship.

python examples/judge_a_night.py [DIRECTORY]
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RULES = """\
rules:
  - {rule: pairs, min: 40}
  - {rule: failure_fraction, max: 0}
  - {rule: mean, column: ssim, min: 0.8}
  - {rule: drift, column: mae, distance: ks, max: 0.3}
"""


def write_pairs(path: Path, noise: float, count: int = 40) -> None:
    """Pairs of a random pattern and the same with noise, as PNG in a Parquet file."""
    random = np.random.default_rng(0)
    targets = np.repeat(np.repeat(random.integers(60, 200, (count, 6, 8, 3)), 8, axis=1), 8, axis=2)
    generated = np.clip(targets + random.normal(0, noise, targets.shape), 0, 255)
    sides = {"generated": generated, "target": targets}
    pq.write_table(pa.table({name: [png(image) for image in images] for name, images in sides.items()}), path)


def png(image: np.ndarray) -> bytes:
    """The image as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pairloss(*arguments: str) -> int:
    """The command `pairloss`; its exit code."""
    return subprocess.run([sys.executable, "-m", "pairloss", *arguments], check=False).returncode


def main(directory: Path) -> int:
    directory.mkdir(exist_ok=True)
    (directory / "rules.yaml").write_text(RULES, encoding="utf-8")
    for night, noise in (("yesterday", 4), ("tonight", 12)):
        write_pairs(directory / f"{night}.parquet", noise)
        run = ["run", f"--input={directory / night}.parquet", f"--output={directory / night}", "--losses=mae,ssim"]
        if code := pairloss(*run, "--quiet"):
            return code
    rules, baseline = f"--rules={directory / 'rules.yaml'}", f"--baseline={directory / 'yesterday'}"
    return pairloss("audit", "gate", str(directory / "tonight"), rules, baseline)


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:] or ["nights"])))
