"""The performance record: shares, rates and costs, as far as they are defined."""

import pytest

from transforms.summary.performance import performance
from transforms.work import STAGES, Work

SPAN = {"m/1": (0.0, 36.0)}


def test_a_record():
    seconds = {
        "waiting_for_reading": 4.0,
        "decoding": 90.0,
        "waiting_for_decoding": 20.0,
        "network": 5.0,
        "losses": 3.0,
        "writing": 8.0,
    }
    work = Work(90, seconds, 1000, 2000, SPAN, {"a": 1.23456}, {"b": 12})
    assert performance(work, price_per_hour=0.5) == {
        "pairs": 90,
        "seconds": {**dict.fromkeys(STAGES, 0.0), **seconds},
        "waited_for_decoding": 0.7143,
        "bound_by": "decoding",
        "bound_share": 0.5,
        "bytes_read": 1000,
        "peak_memory": 2000,
        "workers": 1,
        "worker_seconds": 36.0,
        "pairs_per_second_per_worker": 2.5,
        "price_per_hour": 0.5,
        # 36 s cost 0.005, for 90 pairs.
        "cost_per_million_pairs": 55.5556,
        "slowest": {"a": 1.235},
        "largest": {"b": 12},
    }


@pytest.mark.parametrize(
    ("seconds", "bound", "share"),
    [
        ({"listing": 3.0, "waiting_for_reading": 1.0}, "listing", 0.75),
        ({"waiting_for_reading": 3.0, "writing": 1.0}, "reading", 0.75),
        # Threads that decode are beside the others: only waiting for them holds these up.
        ({"decoding": 100.0, "waiting_for_decoding": 1.0, "network": 3.0}, "network", 0.75),
        # Who waits for the GPU waits for the network of another thread.
        ({"queueing": 2.0, "network": 1.0, "losses": 1.0}, "network", 0.75),
        ({"losses": 3.0, "other": 1.0}, "losses", 0.75),
        ({"optimizing": 3.0, "network": 1.0}, "optimizing", 0.75),
        ({"writing": 3.0, "waiting_for_decoding": 1.0}, "writing", 0.75),
    ],
)
def test_the_bottleneck(seconds, bound, share):
    record = performance(Work(pairs=1, seconds=seconds, processes=SPAN))
    assert (record["bound_by"], record["bound_share"]) == (bound, share)


def test_nothing_was_measured():
    """Every pair was taken over from an earlier run, or scored before a worker reported."""
    record = performance(Work(), price_per_hour=1.0)
    assert record["pairs"] == 0
    undefined = {"bound_by", "waited_for_decoding", "pairs_per_second_per_worker", "cost_per_million_pairs"}
    assert not undefined & record.keys()
