"""Check the wheels of the GPU image against what TensorFlow looks for: `python -m deploy.check_gpu_wheels`.

Run it by hand after a change of constraints-gpu.txt or of TensorFlow: it downloads gigabytes of wheels, one by one, and
keeps none. It needs no GPU and no Docker. Per package it checks that TensorFlow's extra and-cuda admits the pinned
version, that the wheel holds the files below, and that TensorFlow's libraries look in the folders where these lie.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import distribution, requires
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

PINS = Path(__file__).parent / "constraints-gpu.txt"
# By package, the files below site-packages that TensorFlow and XLA open: libraries by their names, ptxas and libdevice
# for XLA, which compiles descents.
FILES = {
    "nvidia-cublas-cu12": ("nvidia/cublas/lib/libcublas.so.12", "nvidia/cublas/lib/libcublasLt.so.12"),
    "nvidia-cuda-cupti-cu12": ("nvidia/cuda_cupti/lib/libcupti.so.12",),
    "nvidia-cuda-nvcc-cu12": (
        "nvidia/cuda_nvcc/bin/ptxas",
        "nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc",
    ),
    "nvidia-cuda-nvrtc-cu12": ("nvidia/cuda_nvrtc/lib/libnvrtc.so.12",),
    "nvidia-cuda-runtime-cu12": ("nvidia/cuda_runtime/lib/libcudart.so.12",),
    "nvidia-cudnn-cu12": ("nvidia/cudnn/lib/libcudnn.so.9",),
    "nvidia-cufft-cu12": ("nvidia/cufft/lib/libcufft.so.11",),
    "nvidia-curand-cu12": ("nvidia/curand/lib/libcurand.so.10",),
    "nvidia-cusolver-cu12": ("nvidia/cusolver/lib/libcusolver.so.11",),
    "nvidia-cusparse-cu12": ("nvidia/cusparse/lib/libcusparse.so.12",),
    "nvidia-nccl-cu12": ("nvidia/nccl/lib/libnccl.so.2",),
    "nvidia-nvjitlink-cu12": ("nvidia/nvjitlink/lib/libnvJitLink.so.12",),
}
# cuDNN finds NVRTC, and cuSOLVER and cuSPARSE find nvJitLink, by their own search paths. TensorFlow 2.21 opens no
# cuRAND.
FOUND_BY_OTHERS = ("nvidia-cuda-nvrtc-cu12", "nvidia-curand-cu12", "nvidia-nvjitlink-cu12")


def main() -> int:
    """Check every package, and print a line for each; return 1 if something is missing."""
    pins = dict(line.split("==") for line in PINS.read_text(encoding="utf-8").splitlines() if "==" in line)
    admitted = cuda_requirements()
    searched = searched_folders()
    faults = [f"{name}: not pinned in {PINS.name}" for name in admitted.keys() - pins.keys()]
    for name, version in pins.items():
        found = version_faults(name, version, admitted)
        with tempfile.TemporaryDirectory() as directory:
            files = files_of_wheel(f"{name}=={version}", Path(directory))
        found += [f"{path} is missing" for path in FILES[name] if path not in files]
        if name not in FOUND_BY_OTHERS:
            found += unseen_folders(FILES[name], searched)
        print(f"{name} {version}: {'; '.join(found) or 'as TensorFlow needs it'}", flush=True)
        faults += found
    return 1 if faults else 0


def cuda_requirements() -> dict[str, Requirement]:
    """The requirements of the extra and-cuda of the installed TensorFlow, by the package's name."""
    asked = map(Requirement, requires("tensorflow") or ())
    return {
        each.name: each
        for each in asked
        if each.marker and each.marker.evaluate({"extra": "and-cuda"}) and each.name.startswith("nvidia-")
    }


def searched_folders() -> set[str]:
    """The folders below site-packages in which TensorFlow's libraries look for others."""
    folder = Path(str(distribution("tensorflow").locate_file("tensorflow")))
    folders = set()
    for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
        read = ["readelf", "--dynamic", folder / name]
        dynamic = subprocess.run(read, check=True, stdout=subprocess.PIPE, text=True).stdout
        (runpath,) = (line for line in dynamic.splitlines() if "RUNPATH" in line)
        folders |= set(re.findall("nvidia/[a-z_]+/lib", runpath))
    return folders


def version_faults(name: str, version: str, admitted: dict[str, Requirement]) -> list[str]:
    """The faults of a pinned version."""
    if name not in admitted:
        return [f"{name}: TensorFlow does not ask for it"]
    return [] if admitted[name].specifier.contains(version) else [f"TensorFlow asks for {admitted[name]}"]


def files_of_wheel(requirement: str, directory: Path) -> set[str]:
    """Download a wheel into a directory; return the names of its files."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    subprocess.run([*command, directory, requirement], check=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def unseen_folders(needed: Sequence[str], searched: set[str]) -> list[str]:
    """The folders of needed libraries where TensorFlow does not look."""
    folders = (str(PurePosixPath(path).parent) for path in needed if ".so" in path)
    return [f"TensorFlow does not look in {folder}" for folder in folders if folder not in searched]


if __name__ == "__main__":
    sys.exit(main())
