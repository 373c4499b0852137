"""What every test file shares: the real weights, and a quiet TensorFlow."""

import os

import pytest

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def lpips_weights():
    """The published weights; fetched by the first run on a machine, from the cache afterwards."""
    from pipeline.weights import ensure_weights
    from transforms.losses.networks.weights_file import LPIPS_SHA256, WeightsFile

    return WeightsFile(str(ensure_weights()), LPIPS_SHA256)


@pytest.fixture(scope="module")
def gcs(tmp_path_factory):
    """A Google Cloud Storage server without buckets, which this process uses while the module's tests run."""
    from support.gcs_server import serve_this_process

    with serve_this_process(tmp_path_factory.mktemp("gcs")) as server:
        yield server
