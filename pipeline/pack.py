"""`pairloss pack`: any input into Parquet shards of even size, whose images have been decoded once to check them."""

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.errors import CRASH, NOTHING_SCORED, OK, USAGE, UsageError
from pipeline.flags import Parser, positive
from pipeline.parse import parse

if TYPE_CHECKING:
    import pyarrow as pa

    from transforms.schema import ChunkSeries, EncodedChunk

_ROW_GROUP_PAIRS = 256
# Small, for as many chunks as there are threads are in memory.
_CHUNK_PAIRS = 64


def main(argv: Sequence[str]) -> int:
    """Pack the pairs; return the exit code."""
    parser = Parser(
        "pairloss pack",
        "Copy the pairs of any input into Parquet shards of even size, quicker to read than many small files. "
        "Every image is decoded to check it; pairs that fail go to _failures.jsonl.",
        "All flags of `pairloss run` that say where the pairs are and how to read them are accepted.",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="an empty or a new directory, local, gs:// or s3://"
    )
    parser.add_argument(
        "--shard_pairs", type=positive, default=4096, metavar="N", help="most pairs in a shard (default: 4096)"
    )
    try:
        given, flags = parser.parse_known_args(argv)
        config = parse([*flags, f"--output={given.output}", "--losses=mae"])
        return _pack(config, given.shard_pairs)
    except OSError as error:
        print(f"error: cannot write to --output={given.output}: {error}; name another directory", file=sys.stderr)
        return CRASH
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def _pack(config: Config, shard_pairs: int) -> int:
    # These import Beam, which takes seconds; wrong arguments are reported before that.
    from apache_beam.io.filesystems import FileSystems

    from pipeline.launch.prepare import find_inputs
    from transforms.reading.list_chunks import list_chunks
    from transforms.storage.run_files import RunFiles, delete_directory, list_files

    directory = RunFiles(config.output)
    if any(list_files(config.output, deep=True)):
        raise UsageError(f"--output={config.output} is not empty; give an empty or a new directory")
    files, listing, keep = find_inputs(config)
    if listing:
        directory.write_whole(files[0].path, listing)
    series = [
        one
        for file in files
        for one in list_chunks(file, config.input_format, config.fields, _CHUNK_PAIRS, sandbox=config.sandbox)
    ]
    total = sum(chunk.pairs for one in series for chunk in one)
    shards = _Shards(ceil(total / max(1, ceil(total / shard_pairs))), bool(config.fields.mask))
    failures: list[str] = []
    for checked in _check_all(series, config, keep):
        failures += [json.dumps(asdict(failure)) + "\n" for failure in checked.failures]
        for number, content in shards.add(checked.pairs):
            directory.write_whole(FileSystems.join(config.output, f"pairs-{number:05}.parquet"), content)
    for number, content in shards.rest():
        directory.write_whole(FileSystems.join(config.output, f"pairs-{number:05}.parquet"), content)
    if failures:
        directory.write_whole(FileSystems.join(config.output, "_failures.jsonl"), "".join(failures).encode())
    for scratch in (directory.listing_directory, directory.temporary):
        delete_directory(scratch)
    if not config.quiet:
        print(f"pairs: {shards.pairs}, shards: {shards.written}, failures: {len(failures)}", file=sys.stderr)
    return OK if shards.pairs else NOTHING_SCORED


def _check_all(series: "Iterable[ChunkSeries]", config: Config, keep: "Sequence[pa.Field]") -> "Iterator[EncodedChunk]":
    """Read and check series of chunks in threads, in order; a few are read ahead."""
    from transforms.worker.threads import thread_count

    threads = thread_count()
    pending: deque[Future[list[EncodedChunk]]] = deque()
    with ThreadPoolExecutor(threads, "pack") as pool:
        for one in series:
            pending.append(pool.submit(_check, one, config, keep))
            if len(pending) > threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _check(series: "ChunkSeries", config: Config, keep: "Sequence[pa.Field]") -> "list[EncodedChunk]":
    import pyarrow as pa

    from transforms.failure import row_failure
    from transforms.images.decode import DecodeError
    from transforms.images.sandboxed import decode_pairs
    from transforms.reading.read_chunks import read_series
    from transforms.scoring.encoded_pairs import encoded_pairs

    checked = []
    for encoded in read_series(series, config.fields, keep, config.sandbox, config.policy.max_image_bytes):
        outcomes = decode_pairs(encoded_pairs(encoded.pairs, bool(config.fields.mask)), config.policy, config.sandbox)
        failed = {row: outcome for row, outcome in enumerate(outcomes) if isinstance(outcome, DecodeError)}
        failures = [
            row_failure(encoded.pairs, row, "decode", error.reason, error.message) for row, error in failed.items()
        ]
        good = pa.array([row for row in range(len(outcomes)) if row not in failed], pa.int64())
        checked.append(replace(encoded, pairs=encoded.pairs.take(good), failures=(*encoded.failures, *failures)))
    return checked


@dataclass
class _Shards:
    """Collects pairs, all with masks or all without, and gives away shards of `size` pairs, as Parquet files."""

    size: int
    masked: bool
    waiting: "pa.Table | None" = None
    pairs: int = 0
    written: int = 0

    def add(self, pairs: "pa.Table") -> Iterator[tuple[int, bytes]]:
        """Add pairs; yield the shards that are full."""
        import pyarrow as pa

        # Scoring notes the same of an image again.
        plain = pairs.select([name for name in pairs.column_names if name != "notes"])
        for side in ("generated", "target", *(["mask"] if self.masked else [])):
            at = plain.schema.get_field_index(side)
            plain = plain.set_column(at, side, plain[side].cast(pa.binary()))
        self.waiting = plain if self.waiting is None else pa.concat_tables([self.waiting, plain])
        while len(self.waiting) >= self.size > 0:
            yield self._shard(self.waiting.slice(0, self.size))
            self.waiting = self.waiting.slice(self.size)

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """The last shard, unless it is empty."""
        if self.waiting is not None and len(self.waiting):
            yield self._shard(self.waiting)

    def _shard(self, pairs: "pa.Table") -> tuple[int, bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        # Images are compressed already; targets of several candidates are repeated.
        pq.write_table(
            pairs,
            sink,
            row_group_size=_ROW_GROUP_PAIRS,
            compression="none",
            use_dictionary=[name for name in pairs.column_names if name not in ("id", "source", "generated")],
            dictionary_pagesize_limit=1 << 30,
            write_page_checksum=True,
        )
        self.pairs += len(pairs)
        self.written += 1
        return self.written - 1, sink.getvalue().to_pybytes()
