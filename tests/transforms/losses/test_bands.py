"""The order in which the stages of a network compute a large picture, and the memory that this takes."""

import math

import numpy as np
import pytest

from transforms.losses import bands, planar_evaluator, tile_grid
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS

# Channels of what stages keep for each other.
CHANNELS = {"pool2": 128, "pool3": 256, "pool4": 512}

CASES = [
    ("vgg16_lpips", LPIPS_LAYERS),
    ("vgg16_dists", LPIPS_LAYERS),
    ("vgg16_keras", ("pool2", "pool5")),
    ("vgg16_keras", ("relu1_1", "relu3_1")),
    ("alexnet_lpips", ("relu1", "relu5")),
]


def test_stages_end_with_the_deepest_layer():
    def stages(*layers):
        found = bands.stages_for(NETWORKS["vgg16_lpips"], layers)
        return [(stage.source, stage.computed, stage.margin, stage.step) for stage in found]

    assert stages("relu2_2", "relu1_1") == [("data", ("relu1_1", "relu2_2"), 6, 2)]
    assert stages("pool2") == [("data", ("pool2",), 8, 4)]
    assert stages("relu3_3", "pool2") == [("data", ("pool2",), 8, 4), ("pool2", ("relu3_3",), 12, 4)]
    assert stages("pool5") == [
        ("data", ("pool2",), 8, 4),
        ("pool2", ("pool3",), 16, 8),
        ("pool3", ("pool4",), 32, 16),
        ("pool4", ("pool5",), 64, 32),
    ]


@pytest.mark.parametrize(("network", "layers"), CASES)
@pytest.mark.parametrize("height", [16, 129, 500, 1025])
@pytest.mark.parametrize("rows", [32, 128])
def test_every_stage_computes_every_row_once_from_rows_that_are_kept(network, layers, height, rows):
    stages = bands.stages_for(NETWORKS[network], layers)
    done, kept = [0] * len(stages), [0] * len(stages)
    for band in bands.bands(height, stages, rows):
        stage, before = stages[band.stage], band.stage - 1
        assert band.top == done[band.stage] < band.bottom
        assert band.top % stage.step == 0
        assert band.bottom == height or band.bottom % stage.step == 0
        if before >= 0:
            assert min(height, band.bottom + stage.margin) <= done[before]
            assert max(0, band.top - stage.margin) >= kept[before]
        done[band.stage], kept[band.stage] = band.bottom, band.kept
    assert done == [height] * len(stages)


@pytest.mark.parametrize("size", [(40, 33), (225, 193)])
@pytest.mark.parametrize("stride", [1, 8])
def test_a_window_moves_over_the_maps(size, stride):
    shape = 2, size[0] // stride, size[1] // stride
    maps = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    window = bands.Window(shape, stride)
    for top in range(0, size[0], 32):
        bottom = min(top + 32, size[0])
        seen_from = max(0, top - 16)
        window.move(seen_from, bottom)
        for tile in tile_grid.tiles(*size, 16, 8, 48**2, (top, bottom)):
            of_tile = maps[:, tile.rows.start // stride :, tile.columns.start // stride :]
            window.fill(tile, of_tile[:, : shape[1] if bottom == size[0] else None])
        rows = slice(seen_from // stride, bottom // stride)
        whole = tile_grid.Tile(slice(seen_from, bottom), slice(0, size[1]), tile_grid.Core())
        np.testing.assert_array_equal(window.seen_by(whole), maps[:, rows])


def taken(network, layers, height, width, threads=2):
    """The most bytes that are held at once for a pair: by windows, by ncnn, and for features of an image."""
    row, stages = NETWORKS[network], bands.stages_for(NETWORKS[network], layers)
    windows = {
        stage.cut: bands.Window((CHANNELS[stage.cut], height, width // row.strides[stage.cut]), row.strides[stage.cut])
        for stage in stages
        if stage.cut
    }
    held = dict.fromkeys(windows, 0.0)
    most = 0.0
    rows = bands.band_rows(height, stages, [window for window in windows.values() for _ in range(2)])
    for band in bands.bands(height, stages, rows):
        stage = stages[band.stage]
        if stage.cut:
            held[stage.cut] = 2 * windows[stage.cut].bytes_per_row * (band.bottom - band.kept)
        tiles = planar_evaluator.tiles_of(stage, height, width, band)
        pixels = max((t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for t in tiles)
        most = max(most, sum(held.values()) + threads * 1.25 * pixels * stage.memory)
    return most


@pytest.mark.parametrize(
    ("network", "size", "most"),
    [
        ("vgg16_lpips", (1200, 1200), 700),
        ("vgg16_lpips", (3000, 4000), 850),
        ("vgg16_dists", (6000, 8000), 850),
        ("vgg16_keras", (12000, 16000), 1100),
        ("alexnet_lpips", (6000, 8000), 550),
    ],
)
def test_memory_hardly_grows_with_the_picture(network, size, most):
    assert taken(network, tuple(NETWORKS[network].layers), *size) < most * 2**20
