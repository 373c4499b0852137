"""The cost of work on chunks: seconds by stage, bytes, memory, machines, and the slowest and largest pairs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from typing import Any

# The stages of a worker's time. A thread is in one of them at a time; those of `_BESIDE` go on in threads of their own,
# ahead of the others.
STAGES = {
    "listing": "cut the input files into chunks",
    "reading": "read the bytes of chunks and parsed their records, while others were scored",
    "decoding": "decoded images, in threads that run side by side and ahead of the losses",
    "waiting_for_reading": "waited for a chunk's records",
    "waiting_for_decoding": "waited for decoded pairs",
    "queueing": "waited until another thread had left the GPU",
    "network": "computed networks, with the losses that are computed in the same pass",
    "losses": "computed the other losses",
    "optimizing": "descended",
    "writing": "wrote the files of chunks",
    "other": "the rest: made batches and tables",
}
_BESIDE = ("reading", "decoding")
# How many of the slowest and of the largest pairs are named.
MOST_NAMED = 5
# No count, no time and no number of bytes comes near it.
_BEYOND_ANY = 2**63


@dataclass(frozen=True)
class Work:
    """The cost of the work on some chunks.

    Attributes:
        pairs: that were scored or failed.
        seconds: that threads spent, by stage of `STAGES`.
        bytes_read: of the pairs as they lie in the files.
        peak_memory: the most bytes that one worker process held at once, without its children.
        processes: by process, as `machine/process`, from when to when it worked, in seconds since 1970.
        slowest: the pairs that took most seconds to decode and to evaluate, by key; pairs that were decoded together,
            or evaluated together, share their time.
        largest: the pairs of most pixels, by key.
    """

    pairs: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    peak_memory: int = 0
    processes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    slowest: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Work") -> "Work":
        spans = dict(self.processes)
        for process, (begun, ended) in other.processes.items():
            ours = spans.get(process, (begun, ended))
            spans[process] = min(begun, ours[0]), max(ended, ours[1])
        return Work(
            pairs=self.pairs + other.pairs,
            seconds={
                stage: self.seconds.get(stage, 0.0) + other.seconds.get(stage, 0.0)
                for stage in STAGES
                if stage in self.seconds or stage in other.seconds
            },
            bytes_read=self.bytes_read + other.bytes_read,
            peak_memory=max(self.peak_memory, other.peak_memory),
            processes=spans,
            slowest=most({**self.slowest, **other.slowest}),
            largest=most({**self.largest, **other.largest}),
        )

    @property
    def busy(self) -> dict[str, float]:
        """The seconds of the stages that exclude each other."""
        return {stage: seconds for stage, seconds in self.seconds.items() if stage not in _BESIDE}

    @property
    def machines(self) -> int:
        """The number of machines that worked."""
        return len({_machine(process) for process in self.processes})

    @property
    def machine_seconds(self) -> float:
        """The seconds in which a process of a machine worked, or waited for a chunk, summed over the machines."""
        spans: dict[str, list[tuple[float, float]]] = {}
        for process, span in self.processes.items():
            spans.setdefault(_machine(process), []).append(span)
        return sum(_union(of_machine) for of_machine in spans.values())

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Work":
        """Read back what `to_json` wrote, without what another version may have added.

        Raises:
            ValueError: it is something else.
        """
        try:
            known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
            processes = {name: (begun, ended) for name, (begun, ended) in known.get("processes", {}).items()}
            work = cls(**{**known, "processes": processes})
            by_name = (work.seconds, work.slowest, work.largest)
            numbers = [work.pairs, work.bytes_read, work.peak_memory, *chain(*processes.values())]
            numbers += chain.from_iterable(mapping.values() for mapping in by_name)
            if not all(0 <= number < _BEYOND_ANY for number in numbers):
                raise ValueError("a number of it is below 0 or too large")
        except (AttributeError, TypeError) as error:
            raise ValueError(f"it is not a record of work: {error}") from error
        return work


def most(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the `MOST_NAMED` largest numbers, largest first."""
    return dict(sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMED])


def _machine(process: str) -> str:
    return process.rpartition("/")[0]


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals: processes of one machine work at the same time."""
    total, end = 0.0, float("-inf")
    for begun, ended in sorted(spans):
        total += max(0.0, ended - max(begun, end))
        end = max(end, ended)
    return total
