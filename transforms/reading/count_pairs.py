"""Count the pairs that were listed, apart from what becomes of them: the total that progress is a fraction of."""

from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam

from transforms.schema import ChunkSeries
from transforms.storage.run_files import RunFiles
from transforms.summary.finish import to_json


@dataclass(eq=False)
class CountListed(beam.PTransform):
    """ChunkSeries -> how many pairs there are in all, one number, which `RunFiles.listed` holds as well.

    The launcher looks there where it is not the process that works.

    Attributes:
        output: the run's directory.
    """

    output: str

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, series: beam.PCollection[ChunkSeries]) -> beam.PCollection[int]:
        return (
            series
            | "Pairs" >> beam.Map(_pairs)
            # Every file gives a chunk, be it an empty one, so that there is something to add up.
            | "Add" >> beam.CombineGlobally(sum).without_defaults()
            | "Write" >> beam.ParDo(_Write(RunFiles(self.output)))
        )


def _pairs(series: ChunkSeries) -> int:
    return sum(chunk.pairs for chunk in series)


@dataclass(eq=False)
class _Write(beam.DoFn):
    files: RunFiles

    def process(self, pairs: int) -> Iterable[int]:
        self.files.write_whole(self.files.listed, to_json({"pairs": pairs}))
        yield pairs
