"""Score the same pairs on this machine's Flink and without it, and compare: `python -m deploy.flink.compare`.

Flink gets the job in both ways: from Beam's job server, and as a jar that carries the job. All flags except `--output`
go to `pairloss run`. Exit codes: 0 the tables are the same; 1 they differ, or a run broke off; 2 Flink did not start.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deploy.flink.downloads import FLINK_VERSION, FlinkError
from deploy.flink.session_cluster import SessionCluster
from transforms.schema import CHUNK_KEY
from transforms.storage.run_files import RunFiles, list_files
from transforms.storage.whole_files import read_file

SAME, DIFFERENT, NO_FLINK = 0, 1, 2


class RunError(Exception):
    """A run broke off."""


def main(argv: Sequence[str]) -> int:
    """Run all three, and print the outcome."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.flink.compare",
        description="Score pairs with DirectRunner and on a Flink session cluster on this machine; compare the tables.",
        epilog="Other flags go to pairloss run unchanged.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="local directory for the three runs")
    given, flags = parser.parse_known_args(argv)
    return compare(SessionCluster(), flags, str(given.output))


def compare(starting: AbstractContextManager[SessionCluster], flags: Sequence[str], output: str) -> int:
    """Score with DirectRunner and on a cluster, in both ways, and print the outcome.

    Args:
        starting: starts the cluster when it is entered.
        flags: of the runs, without the engine and the output.
        output: local or `s3://` directory for the three runs.

    Returns:
        the exit code.
    """
    try:
        print(
            f"starting Flink {FLINK_VERSION}; the first start on this machine fetches 230 MB and builds a jar",
            flush=True,
        )
        with starting as cluster:
            print(f"Flink is up at {cluster.master}, with 2 slots and Beam's worker pool", flush=True)
            engines = {
                "DirectRunner": ["--runner=DirectRunner"],
                "job server": cluster.flags(),
                "uber jar": cluster.flags(uber_jar=True),
            }
            tables = {
                name: _score(cluster, name, [*flags, *engine], f"{output}/{name.replace(' ', '_')}")
                for name, engine in engines.items()
            }
    except FlinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_FLINK
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return DIFFERENT
    except KeyboardInterrupt:
        print("interrupted; Flink is down", file=sys.stderr)
        return DIFFERENT
    direct = tables["DirectRunner"]
    differing = [name for name, table in tables.items() if not same_table(table, direct)]
    if differing:
        print(f"error: the table of DirectRunner differs from that of {' and '.join(differing)}", file=sys.stderr)
        return DIFFERENT
    print(f"\nall three tables are the same bit for bit: {len(direct)} rows of {direct.num_columns} columns")
    return SAME


def metrics(output: str | Path) -> pa.Table:
    """The metrics of a run, in a local directory or in a store, in the order of the input."""
    files = sorted(list_files(RunFiles(str(output)).metrics_directory))
    table = pa.concat_tables([pq.read_table(pa.BufferReader(read_file(file))) for file in files]).sort_by("source")
    # The first chunk's name is among the metadata; that of folders comes from a listing in the run's own directory.
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != CHUNK_KEY}
    return table.replace_schema_metadata(metadata)


def same_table(one: pa.Table, other: pa.Table) -> bool:
    """True if two tables agree in schema, metadata and every bit."""
    return one.equals(other, check_metadata=True)


def _score(cluster: SessionCluster, name: str, flags: Sequence[str], output: str) -> pa.Table:
    run = [os.path.relpath(sys.executable), "-m", "pipeline.run", f"--output={output}", "--overwrite", "--quiet"]
    command = [*run, *flags]
    print(f"\n{name}:\n  {shlex.join(command)}", flush=True)
    began = time.monotonic()
    if cluster.start(command).wait():
        raise RunError(f"the run with {name} broke off")
    table = metrics(output)
    print(f"  {len(table)} pairs scored in {time.monotonic() - began:.0f} s, including start and end", flush=True)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
