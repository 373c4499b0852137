"""The performance record at the end of run.json: where the workers' time went, and what a pair costs."""

from typing import Any

from transforms.work import STAGES, Work

# The stages of scoring, in which the losses are computed or waited for.
_SCORING = ("waiting_for_decoding", "queueing", "network", "losses", "optimizing")
# The stages that keep all others waiting, and what each is called after.
BOUND = {
    "listing": ("listing",),
    "reading": ("waiting_for_reading",),
    "decoding": ("waiting_for_decoding",),
    "network": ("network", "queueing"),
    "losses": ("losses",),
    "optimizing": ("optimizing",),
    "writing": ("writing",),
}
_SECONDS_PER_HOUR = 3600


def performance(work: Work, price_per_hour: float | None = None) -> dict[str, Any]:
    """The record as plain values.

    Args:
        work: of all chunks of the run, in all its launches.
        price_per_hour: of one worker machine, in any currency.

    Returns:
        `pairs`: that the numbers are about; not those taken over from an earlier run. `seconds`: by stage of `STAGES`.
        `waited_for_decoding`: the share of the scoring time in which no decoded pair was ready. `bound_by`: the
        stage that took most of the workers' time, and `bound_share`: its share. `bytes_read`. `peak_memory`: of a
        worker process, in bytes, without its children. `workers`: machines. `worker_seconds`: from the first work of
        each to its last. `pairs_per_second_per_worker`. `price_per_hour` and `cost_per_million_pairs`. `slowest`:
        seconds by pair. `largest`: pixels by pair. Numbers that are not defined are left out.
    """
    record: dict[str, Any] = {
        "pairs": work.pairs,
        "seconds": {stage: round(work.seconds.get(stage, 0.0), 3) for stage in STAGES},
    }
    scoring = sum(work.seconds.get(stage, 0.0) for stage in _SCORING)
    if scoring:
        record["waited_for_decoding"] = round(work.seconds.get("waiting_for_decoding", 0.0) / scoring, 4)
    if busy := sum(work.busy.values()):
        bound = {name: sum(work.seconds.get(stage, 0.0) for stage in stages) for name, stages in BOUND.items()}
        record["bound_by"] = max(bound, key=bound.__getitem__)
        record["bound_share"] = round(bound[record["bound_by"]] / busy, 4)
    record |= {
        "bytes_read": work.bytes_read,
        "peak_memory": work.peak_memory,
        "workers": work.machines,
        "worker_seconds": round(work.machine_seconds, 3),
    }
    if work.pairs and work.machine_seconds:
        record["pairs_per_second_per_worker"] = round(work.pairs / work.machine_seconds, 4)
    if price_per_hour is not None:
        record["price_per_hour"] = price_per_hour
        if work.pairs:
            cost = price_per_hour * work.machine_seconds / _SECONDS_PER_HOUR
            record["cost_per_million_pairs"] = round(1e6 * cost / work.pairs, 4)
    record["slowest"] = {key: round(seconds, 3) for key, seconds in work.slowest.items()}
    return record | {"largest": dict(work.largest)}
