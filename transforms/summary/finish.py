"""Finish a run: check that nothing was lost, then write summary.json, run.json and, last of all, _SUCCESS.

A step of the graph does this and not the launcher, so that a run is complete even if its launcher is gone.
"""

import time
from collections.abc import Iterable
from dataclasses import replace

from transforms.storage.json_files import to_json
from transforms.storage.run_files import RunFiles, create_file
from transforms.storage.run_record import RunRecord
from transforms.storage.worker_files import WorkerReport, read_reports, write_report
from transforms.summary.performance import performance
from transforms.summary.summary import Summary
from transforms.summary.summary_file import summary_file
from transforms.work import Work
from transforms.worker.stopwatch import process


class LostPairsError(Exception):
    """Records were read that are neither scored nor failed: a defect of the program."""


def finish_run(summary: Summary, files: RunFiles, record: RunRecord) -> None:
    """Write the run's last files. _SUCCESS is written only if a pair was scored and every chunk is done.

    Args:
        summary: of all chunks.
        files: the run's files.
        record: the beginning of run.json, as the launcher wrote it.

    Raises:
        LostPairsError: scored + failed != read.
    """
    if summary.scored + summary.failed != summary.read:
        raise LostPairsError(f"of {summary.read} pairs read, {summary.scored} were scored and {summary.failed} failed")
    work = _work_of_all(read_reports(files, record.fingerprint), summary.work, record.claim)
    ended = replace(
        record,
        status="incomplete" if summary.not_done else "finished" if summary.scored else "nothing_scored",
        # A clock may be set back meanwhile.
        seconds=max(0.0, round(time.time() - record.started, 3)),
        counts=summary.counts(),
        precision=tuple(sorted(summary.precisions)),
        devices=tuple(sorted(summary.devices)),
        reused=summary.reused,
        scored_again=dict(sorted(summary.scored_again.items())),
        performance=performance(work, record.price_per_hour),
    )
    files.write_whole(files.summary, summary_file(summary, record.identity))
    files.write_whole(files.config, to_json(ended.to_json()))
    files.delete_temporaries()
    if ended.status == "finished":
        create_file(files.success, b"")
    if ended.status == "incomplete":
        # For the launcher that resumes the run.
        write_report(
            files, WorkerReport(record.fingerprint, record.claim, process(), time.time(), (), work), record.claim
        )


def _work_of_all(reports: Iterable[WorkerReport], work: Work, claim: str) -> Work:
    """The work of all launches of a run.

    Args:
        reports: of the workers of all launches.
        work: of the chunks of this launch that tell what they took: not those that an engine tried again when they were
            done. The workers' reports know these, but not what was done since.
        claim: of the launcher.
    """
    reported: dict[str, Work] = {}
    for report in reports:
        reported[report.claim] = reported.get(report.claim, Work()) + report.work
    ours = max(work, reported.pop(claim, Work()), key=lambda work: work.pairs)
    return sum(reported.values(), ours)
