"""Kernels that reduce the same maps of a pair."""

from pkgutil import resolve_name

import numpy as np
import pytest
from support.pictures import noise, smooth

from transforms.losses.catalog import LOSSES
from transforms.losses.fused.on_maps import OnMaps, values_of_pair

PAIR = noise(1, 12, 13), smooth(12, 13)


def test_shared_maps_are_computed_once_for_each_pair():
    seen = []

    def differences(generated, target):
        seen.append((generated, target))
        return np.abs(generated.astype(int) - target)

    kernels = [OnMaps(differences, np.max), lambda generated, target: generated.size, OnMaps(differences, np.min)]
    expected = differences(*PAIR)
    seen.clear()
    for _ in range(2):
        assert values_of_pair(kernels, *PAIR) == [expected.max(), PAIR[0].size, expected.min()]
    assert len(seen) == 2


@pytest.mark.parametrize("names", [("ciede2000", "ciede2000_p95"), ("psnr_y", "ssim_y")])
def test_losses_that_share_maps_are_the_same_together_and_alone(names):
    kernels = [resolve_name(LOSSES[name].kernel) for name in names]
    assert len({kernel.maps for kernel in kernels}) == 1
    assert values_of_pair(kernels, *PAIR) == [kernel(*PAIR) for kernel in kernels]
