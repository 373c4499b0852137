"""Engines' errors in plain words. The texts are those of a real Flink cluster, shortened in the middle."""

import pytest

from pipeline.engines.errors import explain

HARNESS = (
    "Pipeline job failed in state FAILED: {wrapped}java.lang.RuntimeException: Error received from SDK harness for "
    'instruction 8: Traceback (most recent call last):\n  File "apache_beam/runners/common.py", line 1500, in process\n'
    "{told}\n\nDuring handling of the above exception, another exception occurred:\n\n"
    'Traceback (most recent call last):\n  File "sdk_worker.py", line 310, in _execute\n    response = task()\n'
    "{told} [while running '{step}']{after}\n\n"
)
SERVER = {"wrapped": "", "after": ""}
UBER = {
    "wrapped": "java.util.concurrent.ExecutionException: ",
    "after": "\n\n\tat java.base/java.util.concurrent.CompletableFuture.get(CompletableFuture.java:2005)\n"
    "Caused by: java.lang.RuntimeException: Error received from SDK harness",
}


@pytest.mark.parametrize("mode", [SERVER, UBER], ids=["job server", "uber jar"])
@pytest.mark.parametrize(
    ("told", "step", "plain"),
    [
        (
            "ModuleNotFoundError: No module named 'transforms'",
            "Files/Map(decode)",
            "ModuleNotFoundError: No module named 'transforms' (in step Files/Map(decode)); the workers have no "
            "pairloss: install it in the Python that runs them, or give their image with --sdk_container_image",
        ),
        (
            "transforms.losses.networks.weights_file.WeightsError: cannot read the weights at /a: no such file",
            "ScorePairs/Score",
            "WeightsError: cannot read the weights at /a: no such file (in step ScorePairs/Score)",
        ),
        (
            "apache_beam.io.filesystem.BeamIOError: Rename operation failed with exceptions "
            "{('OUT/_temporary/fce5', 'OUT/metrics/x.parquet'): OSError(NotADirectoryError(20, 'Not a directory'))}",
            "WriteChunk/Write",
            "BeamIOError: Rename operation failed with exceptions {('OUT/_temporary/fce5', 'OUT/metrics/x.parquet'): "
            "OSError(NotADirectoryError(20, 'Not a directory'))} (in step WriteChunk/Write); give an --output that "
            "every worker may write to, such as a gs:// directory",
        ),
    ],
)
def test_a_workers_exception(mode, told, step, plain):
    assert explain(HARNESS.format(told=told, step=step, **mode)) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "Pipeline job failed in state FAILED: \njava.net.ConnectException: java.net.ConnectException: "
            "finishConnect(..) failed: Connection refused",
            "ConnectException: java.net.ConnectException: finishConnect(..) failed: Connection refused; "
            "no worker pool answers at --environment_config: start one beside every TaskManager; or the JobManager is "
            "gone",
        ),
        (
            "Pipeline job failed in state FAILED: \njava.lang.Exception: The user defined 'open()' method caused an "
            "exception: org.apache.beam.vendor.grpc.v1p60p1.io.grpc.StatusRuntimeException: UNAVAILABLE: io exception\n"
            "\tat org.apache.beam.runners.fnexecution.environment.ExternalEnvironmentFactory.createEnvironment\n"
            "Caused by: org.apache.beam.vendor.grpc.v1p60p1.io.netty.channel.AbstractChannel$AnnotatedConnectException:"
            " finishConnect(..) failed: Connection refused: localhost/127.0.0.1:41897\n",
            "AbstractChannel$AnnotatedConnectException: finishConnect(..) failed: Connection refused: "
            "localhost/127.0.0.1:41897; no worker pool answers at --environment_config: start one beside every "
            "TaskManager; or the JobManager is gone",
        ),
        (
            "Traceback (most recent call last):\nRuntimeError: OSError: [Errno 28] No space [while running 'a/b']\n)",
            "OSError: [Errno 28] No space (in step a/b)",
        ),
        ("File too large [while running\n 'Write']", "File too large [while running 'Write']"),
        ("", ""),
    ],
)
def test_others(text, plain):
    assert explain(text) == plain
