"""From chunks to tables of encoded pairs. Plain generators; the Beam step around them is at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam
import pyarrow as pa

from transforms.reading.list_chunks import READ_ERRORS, describe, open_input
from transforms.reading.parquet import read_rows
from transforms.reading.tfrecord import read_records
from transforms.schema import Chunk, ChunkSeries, EncodedChunk, Fields, encoded_schema, pair_failure
from transforms.worker.counters import count

# What goes wrong with a record or a file before there are images to decode. A null image is not among them: it
# travels as a null, and decoding reports it.
READ_REASONS = {
    "unreadable_file": "the file, or this chunk of it, could not be listed or read at all; the message says why",
    "damaged_header": "TFRecord: no record begins where one must; all up to the next good one counts as one",
    "damaged_data": "TFRecord: the checksum of the record's data is wrong",
    "truncated_record": "TFRecord: the file ends inside the record",
    "damaged_stream": "gzipped TFRecord: it breaks off; all after the last whole record counts as one",
    "not_an_example": "the record is not a tf.train.Example",
    "missing_field": "the record has no field for the generated or the target image",
    "wrong_type": "a field of the record holds several values, or a value of another type",
}


def read_series(series: ChunkSeries, fields: Fields, keep: Sequence[pa.Field] = ()) -> Iterator[EncodedChunk]:
    """Read a series of chunks, one after the other: one result per chunk, in order.

    Of every chunk `len(pairs) + len(failures) == chunk.pairs`, unless it could not be read: then its table is
    empty and its one failure has the scope `file`. The next chunk is tried all the same.

    Args:
        series: as `list_chunks` made it; chunks may have been taken out.
        fields: the fields to read.
        keep: the kept fields with the types of the result, as `check_fields` gave them.
    """
    done = 0
    while done < len(series):
        if series[done].error or not series[done].pairs:
            yield _without_records(series[done], keep)
            done += 1
            continue
        try:
            for encoded in _read_on(series[done:], fields, keep):
                done += 1
                yield encoded
        except READ_ERRORS as error:
            yield _unreadable(series[done], "read", describe(error), keep)
            done += 1


def _read_on(series: ChunkSeries, fields: Fields, keep: Sequence[pa.Field]) -> Iterator[EncodedChunk]:
    """Read to the end of the series. Raises one of `READ_ERRORS` at the first chunk that cannot be read."""
    read = read_rows if series[0].format == "parquet" else read_records
    with open_input(series[0].path) as file:
        yield from read(file, series, fields, keep)


def _without_records(chunk: Chunk, keep: Sequence[pa.Field]) -> EncodedChunk:
    if chunk.error:
        return _unreadable(chunk, "list", chunk.error, keep)
    return EncodedChunk(chunk, encoded_schema(keep).empty_table())


def _unreadable(chunk: Chunk, stage: str, problem: str, keep: Sequence[pa.Field]) -> EncodedChunk:
    lost = f"records {chunk.start} to {chunk.stop - 1}" if chunk.pairs else f"records from {chunk.start} on"
    message = f"{chunk.path}, {lost}: {problem}"
    failure = pair_failure(chunk.path, chunk.path, stage, "unreadable_file", message)
    return EncodedChunk(chunk, encoded_schema(keep).empty_table(), (replace(failure, scope="file"),))


@dataclass(eq=False)
class ReadPairs(beam.PTransform):
    """ChunkSeries -> EncodedChunk, by `read_series`.

    Attributes:
        fields: the fields to read.
        keep: the kept fields with the types of the result.
    """

    fields: Fields
    keep: tuple[pa.Field, ...] = ()

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, series: beam.PCollection[ChunkSeries]) -> beam.PCollection[EncodedChunk]:
        return series | beam.ParDo(_Read(self.fields, self.keep)).with_output_types(EncodedChunk)


@dataclass(eq=False)
class _Read(beam.DoFn):
    fields: Fields
    keep: tuple[pa.Field, ...]

    def process(self, series: ChunkSeries) -> Iterator[EncodedChunk]:
        for encoded in read_series(series, self.fields, self.keep):
            lost = [failure for failure in encoded.failures if failure.scope == "file"]
            failed = len(encoded.failures) - len(lost)
            count("chunks_read")
            count("chunks_unreadable", len(lost))
            count("pairs_read", encoded.pairs.num_rows + failed)
            count("bytes_read", encoded.pairs.nbytes)
            yield encoded
