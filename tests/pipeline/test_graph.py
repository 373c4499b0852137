"""The graph of a run."""

import apache_beam as beam
import pytest

from pipeline import graph
from pipeline.parse import parse
from transforms.storage.run_record import RunRecord


@pytest.mark.parametrize("files", [1, 10_000])
def test_a_job_does_not_grow_with_its_input_files(tmp_path, files):
    """Services refuse jobs of more than some megabytes."""
    config = parse(["--input=in/*", f"--output={tmp_path}/run", "--losses=mae"])
    named = [{"path": f"in/{n}.parquet", "size": n, "modified": n / 7, "label": f"{n}"} for n in range(files)]
    pipeline = beam.Pipeline("FnApiRunner")
    graph.build(pipeline, config, (), RunRecord(fingerprint="f", identity={"input": named}))
    assert pipeline.to_runner_api().ByteSize() < 200_000
