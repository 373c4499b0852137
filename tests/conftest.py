"""Fixtures that several test files share: the published weights, and servers of object stores."""

import gc
import os
import sys
from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType, ModuleType

import pytest

# TensorFlow reads this when it is imported, and prints warnings to standard error without it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Flink's processes live for minutes. Java's quick compiler saves them a third of their CPU time.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


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
    if beam := sys.modules.get("apache_beam.transforms.core"):
        _remember_arguments(beam)
    gc.collect()
    gc.freeze()


def _remember_arguments(beam: ModuleType) -> None:
    """Let Beam inspect each method once. It asks 7,000 times when a run starts, a third of the time of a small one."""
    inspect_arguments = beam.get_function_args_defaults

    @cache
    def of_method(function: FunctionType) -> tuple[list[str], list[object]]:
        return inspect_arguments(MethodType(function, beam))

    def arguments(function: Callable[..., object]) -> tuple[list[str], list[object]]:
        if not isinstance(function, MethodType) or not isinstance(function.__func__, FunctionType):
            return inspect_arguments(function)
        names, defaults = of_method(function.__func__)
        return [*names], [*defaults]

    beam.get_function_args_defaults = arguments


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: files hold the time of their making, and processes must collect the same names."""
    return argname if isinstance(val, bytes) else None
