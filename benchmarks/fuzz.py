"""Mutate images and input files, and put them through the sandbox: is every record scored, or a failure with a reason?

    python -m benchmarks.fuzz --images=1000000 --files=100000 --seed=1

A mutant is made of the seed, its kind and its number alone: `--only=AVIF --first=4711 --images=1` makes it again. The
exit code is 1 if a record was lost, if something raised an error that no failure stands for, or if something took
longer than the limit. A record that ends a child of the sandbox is a failure like others; its number is printed.
"""

import argparse
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.fuzz_bases import ARRAY, PACK, SUFFIXES, ZIP, example, file_bases, image_bases
from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.sandboxed import decode_pairs
from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.record_error import RecordError
from transforms.reading.tfrecord_container import frame
from transforms.reading.zip_members import list_members, read_members
from transforms.schema import Fields
from transforms.storage.errors import READ_ERRORS
from transforms.worker.sandbox import SANDBOX_REASONS, Sandbox, SandboxError
from transforms.worker.threads import thread_count

_POLICY = DecodePolicy(size_mismatch="resize", range="0..1")
_FIELDS = Fields(keep=("label",))
_KEEP = (pa.field("label", pa.int64()),)
# A mutated length must not make a run of the fuzzer endless.
_MOST_RECORDS = 5000
_IMAGES_PER_TASK, _FILES_PER_TASK = 64, 8
_SECONDS_PER_TASK = 600
_TYPES = (np.uint8, np.uint16, np.float32)

_BYTES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 46341, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Outcome:
    """The outcomes of the mutants of one kind.

    Attributes:
        mutants: how many there were.
        counts: records by reason; those that went through are `scored` or, of files, `read`.
        ended: numbers of the mutants that ended a child, with the reason.
        problems: what must not happen.
        seconds: of work, all threads together.
    """

    mutants: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    ended: list[tuple[int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Add the mutants of another one."""
        self.mutants += other.mutants
        self.counts.update(other.counts)
        self.ended += other.ended
        self.problems += other.problems
        self.seconds += other.seconds


# ---- Mutants ----


def mutate(rng: random.Random, bases: Sequence[bytes]) -> bytes:
    """A damaged copy of one of the bases: bits, numbers, stretches."""
    data = bytearray(rng.choice(bases))
    # Headers and footers hold most of what a parser believes.
    low, high = rng.choice(((0, len(data)), (0, min(len(data), 200)), (max(0, len(data) - 600), len(data))))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(low, max(low + 1, min(high, len(data))))
        size = rng.choice((1, 2, 8, 64, 300))
        match rng.choice(("bit", "bit", "byte", "byte", "number", "number", "cut", "drop", "double", "splice")):
            case "bit" if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case "byte":
                data[at : at + 1] = bytes([rng.choice(_BYTES)])
            case "number":
                layout = rng.choice(("<I", ">I", "<H", ">H", "<Q"))
                mask = (1 << 8 * struct.calcsize(layout)) - 1
                data[at : at + struct.calcsize(layout)] = struct.pack(layout, rng.choice(_NUMBERS) & mask)
            case "cut":
                del data[rng.randrange(len(data) + 1) :]
            case "drop":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size] * rng.choice((1, 2, 20))
            case "splice":
                other = rng.choice(bases)
                data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def mutant(kind: str, seed: int, number: int) -> bytes:
    """The mutant of this number. Checksums around its damage are often right again, so that parsers go on."""
    rng = random.Random(f"{seed} {kind} {number}")
    if kind in image_bases():
        data = mutate(rng, image_bases()[kind])
        return _with_png_checksums(data) if kind == "PNG" and rng.random() < 0.7 else data
    bases = file_bases()[kind]
    if kind.startswith("tfrecord") and rng.random() < 0.5:
        damaged = frame(mutate(rng, [bytes(example({"id": "x", "generated": b"g" * 50, "target": b"t", "label": 1}))]))
        return PACK[kind](damaged * 3)
    return mutate(rng, bases)


def _with_png_checksums(data: bytes) -> bytes:
    fixed = bytearray(data)
    at = 8
    while at + 12 <= len(fixed):
        end = at + 8 + int(struct.unpack_from(">I", fixed, at)[0])
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


# ---- Trials ----


def try_images(kind: str, seed: int, numbers: range, sandbox: Sandbox) -> Outcome:
    """Decode mutants beside a sound image, as the generated image or as the target."""
    outcome, began = Outcome(len(numbers)), time.perf_counter()
    good = image_bases()[ARRAY if kind == ARRAY else "PNG"][0]
    made = [(number, mutant(kind, seed, number)) for number in numbers]
    decoded = decode_pairs([(data, good) if n % 2 else (good, data) for n, data in made], _POLICY, sandbox)
    if len(decoded) != len(made):
        outcome.problems.append(f"{kind} {numbers}: {len(decoded)} of {len(made)} records came back")
    for number, one in zip(numbers, decoded, strict=False):
        if isinstance(one, DecodeError):
            outcome.counts[one.reason] += 1
            if one.reason in SANDBOX_REASONS:
                outcome.ended.append((number, one.reason))
            continue
        outcome.counts["scored"] += 1
        a, b = one.generated, one.target
        if a.shape != b.shape or a.dtype != b.dtype or a.dtype not in _TYPES or a.shape[2:] != (3,):
            outcome.problems.append(f"{kind} {number}: {a.shape} {a.dtype} beside {b.shape} {b.dtype}")
    outcome.seconds = time.perf_counter() - began
    return outcome


def try_files(kind: str, seed: int, numbers: range, sandbox: Sandbox) -> Outcome:
    """List and read mutated files, and count their records."""
    outcome, began = Outcome(len(numbers)), time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        for number in numbers:
            data = mutant(kind, seed, number)
            path = Path(directory, f"{number}{SUFFIXES[kind]}")
            path.write_bytes(data)
            stat = path.stat()
            try:
                if kind == ZIP:
                    _read_zip(path, number, sandbox, outcome)
                else:
                    _read(InputFile(str(path), stat.st_size, stat.st_mtime), number, sandbox, outcome)
            except Exception as error:
                outcome.problems.append(f"{kind} {number}: {type(error).__name__}: {error}")
            path.unlink()
    outcome.seconds = time.perf_counter() - began
    return outcome


def _read(file: InputFile, number: int, sandbox: Sandbox, outcome: Outcome) -> None:
    """Raises AssertionError where a record is lost."""
    seen = 0
    for series in list_chunks(file, "auto", _FIELDS, 5, sandbox=sandbox):
        for encoded in read_series(series, _FIELDS, _KEEP, sandbox):
            chunk, rows = encoded.chunk, encoded.pairs.num_rows
            whole = any(failure.scope == "file" for failure in encoded.failures)
            assert chunk.start == seen, f"the chunk at {chunk.start} follows {seen} records"
            assert whole or rows + len(encoded.failures) == chunk.pairs, f"{chunk.pairs} records became {rows}"
            seen = chunk.stop
            outcome.counts["read"] += rows
            outcome.counts.update(failure.reason for failure in encoded.failures)
            ended = {failure.reason for failure in encoded.failures} & SANDBOX_REASONS.keys()
            outcome.ended += [(number, reason) for reason in sorted(ended)]
        if seen > _MOST_RECORDS:
            return


def _read_zip(path: Path, number: int, sandbox: Sandbox, outcome: Outcome) -> None:
    """List an archive, and read its members, as for a folder. Raises AssertionError where a member is lost."""
    with path.open("rb") as file:
        try:
            members = list(list_members(file, sandbox))
        except (*READ_ERRORS, SandboxError) as error:
            outcome.counts[type(error).__name__] += 1
            return
        found = list(read_members(file, [member for _, member in members], sandbox, _POLICY.max_image_bytes))
    outcome.counts.update(one.reason if isinstance(one, RecordError) else "read" for one in found)
    assert len(found) == len(members), f"{len(members)} members became {len(found)}"
    ended = {one.reason for one in found if isinstance(one, RecordError)} & SANDBOX_REASONS.keys()
    outcome.ended += [(number, reason) for reason in sorted(ended)]


Trial = Callable[[str, int, range, Sandbox], Outcome]


def fuzz(trial: Trial, kinds: Sequence[str], count: int, seed: int, first: int, sandbox: Sandbox) -> dict[str, Outcome]:
    """Try mutants, `count` of all kinds together.

    Args:
        trial: `try_images` or `try_files`.
        kinds: keys of `image_bases` or of `file_bases`.
        count: number of mutants.
        seed: of all random choices.
        first: number of the first mutant of each kind.
        sandbox: where they are parsed.

    Returns:
        the outcome by kind.
    """
    outcomes = {kind: Outcome() for kind in kinds}
    step = _IMAGES_PER_TASK if trial is try_images else _FILES_PER_TASK
    last = first + -(-count // max(1, len(kinds)))
    tasks = [(kind, range(at, min(at + step, last))) for at in range(first, last, step) for kind in kinds]
    with ThreadPoolExecutor(thread_count()) as pool:
        waiting: list[tuple[str, range, Future[Outcome]]] = []
        for kind, numbers in tasks:
            waiting.append((kind, numbers, pool.submit(trial, kind, seed, numbers, sandbox)))
            if len(waiting) > 4 * thread_count():
                _collect(outcomes, waiting.pop(0))
        for task in waiting:
            _collect(outcomes, task)
    return outcomes


def _collect(outcomes: dict[str, Outcome], task: tuple[str, range, Future[Outcome]]) -> None:
    kind, numbers, future = task
    try:
        outcomes[kind].add(future.result(_SECONDS_PER_TASK))
    except TimeoutError:
        # The thread cannot be ended, so the fuzzer ends here.
        sys.exit(f"{kind} {numbers}: nothing came back for {_SECONDS_PER_TASK} s")


def _show(kind: str, outcome: Outcome) -> None:
    good = outcome.counts["scored"] + outcome.counts["read"]
    reasons = {reason: n for reason, n in outcome.counts.most_common() if reason not in ("scored", "read")}
    shown = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    counts = f"{good} good records, {sum(reasons.values())} failures ({shown})"
    print(f"{kind:14} {outcome.mutants:8} mutants: {counts}", flush=True)
    for number, reason in outcome.ended[:20]:
        print(f"{'':14} mutant {number}: {reason}")
    for problem in outcome.problems[:20]:
        print(f"{'':14} PROBLEM: {problem}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz, and print what came of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="mutated images, of all formats together")
    parser.add_argument("--files", type=int, default=1_000, help="mutated input files, of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant of each kind")
    parser.add_argument("--only", default="", metavar="KINDS", help="comma-separated; all by default")
    arguments = parser.parse_args(argv)
    only = [kind for kind in arguments.only.split(",") if kind]
    if unknown := set(only) - image_bases().keys() - file_bases().keys():
        parser.error(f"no kind {min(unknown)!r}; there are {', '.join((*image_bases(), *file_bases()))}")
    chosen = partial(filter, lambda kind: kind in only or not only)
    began = time.perf_counter()
    outcomes: dict[str, Outcome] = {}
    for trial, kinds, count in (
        (try_images, image_bases(), arguments.images),
        (try_files, file_bases(), arguments.files),
    ):
        found = fuzz(trial, list(chosen(kinds)), count, arguments.seed, arguments.first, Sandbox())
        outcomes |= found
        for kind, outcome in found.items():
            _show(kind, outcome)
    problems = sum(len(outcome.problems) for outcome in outcomes.values())
    print(f"seed {arguments.seed}: {problems} problems in {time.perf_counter() - began:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
