"""Prepare a run on the launcher: find input files, kept fields and weights, read the rules, settle its identity."""

import dataclasses
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from pipeline.audit.judging.rules import Rule, read_rules
from pipeline.audit.runs.files import read_record
from pipeline.audit.runs.summaries import RunSummary, read_summary
from pipeline.config import Config
from pipeline.credentials import check_credentials
from pipeline.errors import UsageError, masked_flags
from pipeline.failure_reasons import FAILURE_REASONS
from pipeline.launch.run_directory import fingerprint
from transforms.losses.networks.weights_file import WeightsError
from transforms.reading.fields import unite_kept
from transforms.reading.folders import make_listing
from transforms.reading.input_files import InputFile, files_of, is_inside, match_files
from transforms.reading.list_chunks import check_fields, detect_format
from transforms.reading.pairing import pair_files
from transforms.row_keys import CANDIDATE
from transforms.storage.errors import READ_ERRORS
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.writing.earlier_run import ALL, EarlierRun

# How many files are asked for the types of the kept fields.
_MOST_ASKED = 16
# Settings that decide the input or what is made of the metrics, but not the metrics of a chunk.
_NOT_OF_CHUNKS = ("input", "metrics_format", "slice_by")
# They decide only which pairs fail.
_LIMITS = ("max_image_pixels", "max_image_bytes")
_LIBRARIES = ("apache-beam", "tensorflow", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Prepared:
    """A run that may start.

    Attributes:
        config: the settings, with the weights in its plan.
        keep: names and types of the kept fields.
        record: the content of run.json until the run ends.
        rules: those of `--gate`.
        baseline: the summary to compare with; None: there is none.
        listing: the content of the one input file if the run was given folders; the launcher writes it.
        earlier: the run of `--reuse`, if it had the same settings.
    """

    config: Config
    keep: tuple[pa.Field, ...]
    record: RunRecord
    rules: tuple[Rule, ...] = ()
    baseline: RunSummary | None = None
    listing: bytes = b""
    earlier: EarlierRun | None = None


def prepare(config: Config) -> Prepared:
    """Read the rules of the gate, find the input files, check the fields of one of them, and get the weights.

    Raises:
        UsageError: a path at gs:// needs credentials and there are none, the rules or the baseline are wrong, no file
            matches, a field is missing, or the weights cannot be fetched or read.
    """
    patterns = (*config.input, *config.generated, *config.target, *config.mask)
    paths = (*patterns, config.output, *config.weights.values(), config.gate, config.baseline, config.reuse)
    check_credentials(paths)
    # The gate comes last, but a mistake in its rules must not cost a night.
    rules = read_rules(config.gate) if config.gate else ()
    baseline = read_summary(config.baseline) if config.baseline else None
    try:
        files, listing, keep = find_inputs(config)
        plan = config.plan.with_weights(config.weights).with_backend(descends=config.descent is not None)
    except (ValueError, OSError, WeightsError) as error:
        raise UsageError(str(error)) from error
    config = dataclasses.replace(config, plan=plan)
    identity = {**config.identity(), "input": [asdict(file) for file in files]}
    record = RunRecord(
        fingerprint=fingerprint(identity),
        identity=identity,
        versions={name: version(name) for name in _LIBRARIES},
        beam_flags=masked_flags(config.beam_flags),
        started=time.time(),
        claim=uuid.uuid4().hex,
        price_per_hour=config.price_per_hour,
    )
    earlier = _earlier_run(config, identity, keep) if config.reuse else None
    return Prepared(config, keep, record, rules, baseline, listing, earlier)


def _earlier_run(config: Config, identity: Mapping[str, Any], keep: tuple[pa.Field, ...]) -> EarlierRun | None:
    """The run of `--reuse`; None, and a message, if its settings differ.

    Raises:
        UsageError: there is no run, or there is no such reason among those of `--retry_failures`.
    """
    try:
        earlier = read_record(config.reuse)
        # Workers read them as well.
        for _ in files_of(earlier.identity):
            pass
    except (UsageError, ValueError) as error:
        raise UsageError(f"--reuse={config.reuse}: {error}") from error
    if unknown := set(config.retry_failures) - {ALL, *FAILURE_REASONS}:
        known = ", ".join((ALL, *sorted(FAILURE_REASONS)))
        raise UsageError(f"--retry_failures: there is no reason {', '.join(sorted(unknown))}; choose from {known}")
    ours, theirs = (_of_chunks(each, bool(config.retry_failures)) for each in (identity, earlier.identity))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not differing:
        return EarlierRun(config.reuse, earlier.fingerprint, keep, config.retry_failures)
    print(
        f"--reuse={config.reuse}: that run had other {', '.join(differing)}, so every pair is scored",
        file=sys.stderr,
    )
    return None


def find_inputs(config: Config) -> tuple[list[InputFile], bytes, tuple[pa.Field, ...]]:
    """The input files, the content of the first if it is a listing that is still to be written, and the kept fields.

    Raises:
        UsageError: no file matches, or a field is missing.
    """
    try:
        files, listing = _list_folders(config) if config.generated else (_match_files(config), b"")
        candidate = [pa.field(CANDIDATE, pa.string())] if config.fields.has_candidates else []
        return files, listing, (*candidate, *_kept_fields(files, config))
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _match_files(config: Config) -> list[InputFile]:
    """The input files; those of an earlier run in the output directory are none."""
    files = [file for file in match_files(config.input) if not is_inside(file.path, config.output)]
    if not files:
        raise ValueError(f"--input matches only files of --output={config.output}; give the run another directory")
    return files


def _list_folders(config: Config) -> tuple[list[InputFile], bytes]:
    """The listing of the folders' pairs, as the run's one input file, and its content."""
    pairs = pair_files(config.generated, config.target, config.sandbox, config.mask, config.output)
    name, content = make_listing(pairs, config.fields.keep)
    if not config.quiet:
        good = [pair for pair in pairs if not pair.reason]
        targets = len({pair.target for pair in good})
        lonely = (
            f"; without a partner, or with a double key: {len(pairs) - len(good)}" if len(good) < len(pairs) else ""
        )
        print(f"{len(good)} generated images with {targets} targets{lonely}", file=sys.stderr)
    path = FileSystems.join(RunFiles(config.output).listing_directory, name)
    return [InputFile(path, len(content), 0.0)], content


def _kept_fields(files: Sequence[InputFile], config: Config) -> tuple[pa.Field, ...]:
    """The kept fields in types for all files, as far as a few readable ones tell. The run reports unreadable files."""
    if config.generated:
        return tuple(pa.field(name, pa.string()) for name in config.fields.keep)
    fields, wanted = config.fields, _MOST_ASKED if config.fields.keep else 1
    # Also some of the last ones, for types change with time.
    step = max(1, len(files) // wanted)
    asked: dict[tuple[str, str], tuple[pa.Field, ...]] = {}
    strange = []
    for file in [file for first in range(step) for file in files[first::step]]:
        try:
            format = detect_format(file.path, config.input_format)
        except ValueError as error:
            strange.append(str(error))
            continue
        except READ_ERRORS:
            continue
        if (kept := check_fields(file.path, format, fields, config.sandbox, strict=False)) is not None:
            asked[file.path, format] = kept
        if len(asked) == wanted:
            break
    if len(strange) == len(files):
        raise ValueError(strange[0])
    if not asked and fields.keep:
        raise ValueError("--keep_fields: no input file can be read, so the types of the fields are not known")
    held = {field.name for kept in asked.values() for field in kept}
    if not held.issuperset(fields.keep):
        check_fields(*next(iter(asked)), fields, config.sandbox)
    return unite_kept(fields.keep, asked.values())


def _of_chunks(identity: Mapping[str, Any], retries: bool) -> dict[str, Any]:
    """The settings that decide the metrics of a chunk; of a run that tries failures again, those of its good pairs."""
    settings = {name: value for name, value in identity.items() if name not in _NOT_OF_CHUNKS}
    if not retries:
        return settings
    settings.pop("version", None)
    return settings | {"images": {k: v for k, v in settings.get("images", {}).items() if k not in _LIMITS}}
