"""The protocol: what a run says that it does to both images, and what it does."""

import dataclasses

import numpy as np
import pytest

from transforms.losses.protocol import Protocol
from transforms.summary.summary_file import COMPARABLE


@pytest.mark.parametrize(
    ("protocol", "formula"),
    [
        (Protocol(), "mean |d|"),
        (Protocol(crop_border=4), "mean |d|; without 4 pixels at each border"),
        (Protocol(gt_mean=True), "mean |d|; generated scaled to the mean gray of its target"),
        (
            Protocol(4, gt_mean=True),
            "mean |d|; without 4 pixels at each border; generated scaled to the mean gray of its target",
        ),
    ],
)
def test_is_in_the_formula(protocol, formula):
    assert protocol.described("mean |d|") == formula


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 9, 8)])
def test_cuts_the_border(shape):
    images = np.arange(np.prod(shape)).reshape(shape)
    assert Protocol().inside(images) is images
    np.testing.assert_array_equal(Protocol(2).inside(images), images[:, 2:7, 2:6])


def test_a_negative_border_is_refused():
    with pytest.raises(ValueError, match="crop_border must be a whole number, 0 or more, not -1"):
        Protocol(-1)


@pytest.mark.parametrize("protocol", [Protocol(), Protocol(3, True)])
def test_is_read_from_run_json_again(protocol):
    assert Protocol.of_run({"losses": ["mae"], **dataclasses.asdict(protocol)}) == protocol
    assert Protocol.of_run({"losses": ["mae"], "crop_border": 3}) == Protocol(3)


def test_every_part_of_it_decides_whether_runs_compare():
    assert {field.name for field in dataclasses.fields(Protocol)} <= set(COMPARABLE)
