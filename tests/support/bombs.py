"""Pictures that ruin who decodes them: one that really does, and stand-ins for bugs of C libraries."""

import os
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SEGFAULT, SPIN = (b"\x89PNG\r\n\x1a\n" + name for name in (b"SEGFAULT", b"SPIN"))

# Python runs it as it starts: in every process of a run, decoding one of the stand-ins does what its name says.
_SITE = """
import importlib.machinery, os, sys

def deadly(decode):
    def wrapper(data, *others):
        if data.endswith(b"SEGFAULT"):
            os.kill(os.getpid(), 11)
        if data.endswith(b"SPIN"):
            open(os.path.join(os.path.dirname(__file__), "spinning"), "w").close()
            while True:
                pass
        return decode(data, *others)
    return wrapper

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "transforms.images.decode":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            module.load_image, module.decode_array = deadly(module.load_image), deadly(module.decode_array)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder)
"""


def environment_with_bugs(directory: Path) -> dict[str, str]:
    """The environment of processes in which the stand-ins are deadly; the directory is for its files.

    The file `spinning` appears in the directory when a process begins to spin.
    """
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)])}


def huge_png(side: int = 12000) -> bytes:
    """A PNG of one colour: a few hundred kB, of which side x side pixels are made."""
    buffer = BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def npz(pixels: np.ndarray) -> bytes:
    """The pixels as a compressed .npz."""
    buffer = BytesIO()
    np.savez_compressed(buffer, pixels)
    return buffer.getvalue()
