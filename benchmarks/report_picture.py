"""Take the README's picture of the report of `make demo`: `python -m benchmarks.report_picture` writes docs/report.jpg.

Needs Chromium, and the report in demo/run.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "demo" / "run" / "report.html"
OUTPUT = ROOT / "docs" / "report.jpg"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = 1280, 1560
# Headless browsers photograph from the top of a page, so the tables above the worst pairs are left out.
LEFT_OUT = re.compile(
    r'<section id="(?:slices|failures)".*?(?=<section )|<div class="section-head"><h3>Numbers.*?(?=</section>)',
    re.DOTALL,
)
SECONDS = 60


def main() -> int:
    """Photograph the verdict, the charts and the worst pairs of the report."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"error: the picture needs one of {', '.join(BROWSERS)}; install it", file=sys.stderr)
        return 2
    if not REPORT.is_file():
        print(f"error: {REPORT} does not exist; run `make demo` first", file=sys.stderr)
        return 2
    photograph(browser, LEFT_OUT.sub("", REPORT.read_text(encoding="utf-8"))).save(OUTPUT, quality=85)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1e3:.0f} kB")
    return 0


def photograph(browser: str, page: str) -> Image.Image:
    """The top of an HTML page, in a window of `SIZE` pixels.

    Raises:
        subprocess.SubprocessError: the browser failed, or took longer than `SECONDS`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, picture = Path(scratch) / "page.html", Path(scratch) / "page.png"
        source.write_text(page, encoding="utf-8")
        flags = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={scratch}/profile",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            f"--screenshot={picture}",
        )
        subprocess.run([browser, *flags, source.as_uri()], check=True, capture_output=True, timeout=SECONDS)
        with Image.open(picture) as image:
            return image.convert("RGB")


if __name__ == "__main__":
    sys.exit(main())
