"""Fixtures that several test files share: the published weights, and servers of object stores."""

import gc
import os

import pytest

# TensorFlow reads this when it is imported, and prints warnings to standard error without it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def lpips_weights():
    """The published weights, which the first run on a machine downloads into the cache."""
    from transforms.losses.networks.specs import NETWORKS

    return NETWORKS["vgg16_lpips"].weights()


@pytest.fixture(scope="session")
def alexnet_weights():
    """As `lpips_weights`, of LPIPS on AlexNet."""
    from transforms.losses.networks.specs import NETWORKS

    return NETWORKS["alexnet_lpips"].weights()


@pytest.fixture(scope="module")
def gcs(tmp_path_factory):
    """A Google Cloud Storage server without buckets; this process uses it while the module's tests run."""
    from support.gcs_server import serve_this_process

    with serve_this_process(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="module")
def s3():
    """As `gcs`, an S3 server."""
    from support.s3_server import serve_this_process

    with serve_this_process() as server:
        yield server


def pytest_collection_finish() -> None:
    """Spare every later collection of garbage the visit of what imports made: a million objects that stay."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: files hold the time of their making, and processes must collect the same names."""
    return argname if isinstance(val, bytes) else None
