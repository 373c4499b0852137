"""Every Beam step of the pipeline. Each wraps plain functions of the other folders, which know no Beam, and counts.

From ReadPairs to WriteChunk the steps are one-to-one on chunks, so that the engine fuses them and encodes no table in
between.
"""

from transforms.steps.reading import DONE, TO_DO, CountListed, InputFiles, ListChunks, ReadPairs, SplitDone
from transforms.steps.scoring import OptimizePairs, ScorePairs
from transforms.steps.writing import FinishRun, SummarizeChunks, WriteChunk

__all__ = [
    "DONE",
    "TO_DO",
    "CountListed",
    "FinishRun",
    "InputFiles",
    "ListChunks",
    "OptimizePairs",
    "ReadPairs",
    "ScorePairs",
    "SplitDone",
    "SummarizeChunks",
    "WriteChunk",
]
