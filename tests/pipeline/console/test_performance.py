"""The line that tells what held a run up."""

import pytest

from pipeline.console.performance import bottleneck, pairs_named
from transforms.summary.performance import performance
from transforms.work import STAGES, Work


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (
            {"waiting_for_decoding": 71.0, "losses": 29.0, "waiting_for_reading": 20.0},
            "decoding-bound: 71 % of the time the losses waited for decoding",
        ),
        (
            {"waiting_for_decoding": 9.0, "network": 1.0},
            "decoding-bound: 90 % of the time the network waited for decoding",
        ),
        ({"network": 3.0, "losses": 1.0}, "network-bound: 75 % of the workers' time went into the network"),
        ({"writing": 3.0, "losses": 1.0}, "writing-bound: 75 % of the workers' time went into writing"),
    ],
)
def test_the_bottleneck(seconds, told):
    assert bottleneck(performance(Work(seconds=seconds))) == told


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"other", "reading", "decoding"}))
def test_every_stage_can_be_told(stage):
    assert "-bound: 100 % of the " in bottleneck(performance(Work(seconds={stage: 1.0})))


def test_rate_and_cost():
    work = Work(pairs=50, seconds={"losses": 1.0}, processes={"m/1": (0.0, 20.0)})
    told = bottleneck(performance(work, price_per_hour=0.36))
    assert told.endswith(", 2.5 pairs/s per worker, 40 per million pairs")


@pytest.mark.parametrize("record", [{}, performance(Work())])
def test_nothing_is_known(record):
    assert bottleneck(record) == ""
    assert pairs_named(record) == []
