"""`pairloss audit report RUN`: one HTML file: may the dataset ship, and which pairs are the reason?"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.audit.pages.candidates_view import CandidatesView, view_candidates
from pipeline.audit.pages.gallery import Gallery, make_gallery
from pipeline.audit.pages.render import encode, render
from pipeline.audit.pages.views import failure_views, loss_view, pair_views, slice_views, worst_in, worst_rows
from pipeline.audit.runs.candidates import compare_candidates, has_candidates
from pipeline.audit.runs.difference import read_compared
from pipeline.audit.runs.files import read_record, write_file
from pipeline.audit.runs.summaries import RunSummary, check_comparable, read_run, read_summary
from pipeline.audit.runs.verdict_file import read_verdict, skip_reasons
from pipeline.errors import UsageError, for_terminal
from pipeline.flags import Parser, path
from transforms.images.decode import NOTES
from transforms.reading import folders
from transforms.reading.input_files import match_files
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord

# Notes of what is null in a row, before its name.
_NULL = {
    "too_small": "the image is too small for",
    "too_large": "the image is too large for",
    "unmaskable": "no mask can be applied to",
    "outside_mask": "within the mask nothing is compared by",
}


def main(argv: Sequence[str]) -> int:
    """Write the report and print its path; return the exit code.

    Raises:
        UsageError: the run, its verdict, the metrics of its candidates or the baseline cannot be read, they cannot be
            compared, or the page cannot be written.
    """
    parser = Parser(
        "pairloss audit report",
        "Write one HTML file with the verdict, distributions, failures and worst pairs of a run.",
    )
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a finished run, local, gs:// or s3://")
    parser.add_argument("--baseline", type=path, metavar="PATH", help="a good run's directory, or its summary.json")
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="where the images are now")
    parser.add_argument("--output", type=path, metavar="FILE", help="where to write it (default: RUN/report.html)")
    given = parser.parse_args(argv)
    audited = read_run(given.run)
    baseline = read_summary(given.baseline) if given.baseline else None
    if baseline:
        check_comparable(audited, baseline)
    record = read_record(given.run)
    try:
        now = match_files(given.input)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = worst_rows(audited.summary.columns)
    ids = {source: row["id"] for source, row in rows.items()}
    pixels = {source: row["height"] * row["width"] for source, row in rows.items()}
    gallery = make_gallery(ids, record.identity, pixels, now, worst_in(audited.summary.columns))
    candidates = compare_candidates(read_compared(given.run)) if has_candidates(record.identity) else None
    shown = view_candidates(candidates) if candidates else None
    page = build_report(audited, record, gallery, baseline, read_verdict(given.run), shown)
    if gallery.problems:
        reasons = [reason for reason in gallery.problems.values() if reason] or gallery.notices
        lost = f"{len(gallery.problems)} of {len(rows)} pairs have no pictures: {reasons[0]}"
        remedy = "If the files have moved, --input=PATTERN says where they are now."
        print(for_terminal(f"warning: {lost} {remedy}"), file=sys.stderr)
    output = given.output or RunFiles(given.run).report
    write_file(output, encode(page))
    print(output)
    return 0


def build_report(
    audited: RunSummary,
    record: RunRecord,
    gallery: Gallery,
    baseline: RunSummary | None = None,
    verdict: Mapping[str, Any] | None = None,
    candidates: CandidatesView | None = None,
) -> str:
    """The page of a run.

    Args:
        audited: the run's summary.
        record: its run.json.
        gallery: pictures of its worst pairs.
        baseline: the run it is compared with.
        verdict: the content of its verdict.json, if it has one.
        candidates: its candidates two by two, if it has several.
    """
    summary, before = audited.summary, baseline.summary if baseline else None
    columns, earlier = summary.columns, before.columns if before else {}
    rows = worst_rows(columns)
    return render(
        "report.html",
        path=audited.path,
        record=record,
        verdict=verdict,
        skipped=skip_reasons(verdict["results"]) if verdict else [],
        counts=summary.counts(),
        counts_before=before.counts() if before else None,
        baseline=baseline.path if baseline else None,
        losses=[loss_view(distribution, earlier.get(name)) for name, distribution in columns.items()],
        failures=failure_views(summary, before),
        failed_files=sorted(summary.failed_files.items()),
        slice_by=summary.slices.by if summary.slices else None,
        slices=slice_views(summary.slices, summary.pairs) if summary.slices else [],
        candidates=candidates,
        notes=[(name, count, _meaning(name)) for name, count in summary.pairs.notes.most_common()],
        sizes=list(summary.pairs.sizes.items()),
        sources=rows.keys(),
        pairs=pair_views(rows.values(), columns, record.identity["fields"].get("keep", ()), gallery),
        five=any(len([one for one in pair if not one.crop]) > 4 for pair in gallery.pictures.values()),
        notices=gallery.notices,
    )


def _meaning(note: str) -> str:
    """The meaning of a note such as `generated:gray` or `too_small:ssim`."""
    subject, _, kind = note.partition(":")
    if subject in _NULL:
        return f"{_NULL[subject]} {kind}"
    return NOTES.get(kind, "") or folders.NOTES.get(note, "")
