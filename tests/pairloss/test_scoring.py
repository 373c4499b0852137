"""`score` gives the numbers of a run, for arrays, lists and files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pairloss import LOSSES, DecodePolicy, score
from pipeline.run import main

pytestmark = pytest.mark.heavy

OBJECTIVE = "lpips_vgg + 0.1*fd_l1"
SIZES = [(170, 164), (40, 24), (170, 164), (10, 12), (40, 24)]
TARGETS = [smooth(*size, shift=row) for row, size in enumerate(SIZES)]
GENERATED = [target // 2 + noise(row, *target.shape[:2]) // 2 for row, target in enumerate(TARGETS)]
# The left part of each picture, wider from one to the next.
MASKS = [np.arange(size[1]) < 6 * (row + 1) + np.zeros((size[0], 1)) for row, size in enumerate(SIZES)]

# Keras does not ship its weights in a package.
NAMES = [name for name, loss in LOSSES.items() if loss.network != "vgg16_keras" and not loss.part_of]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The metrics that a run writes of these pairs: every loss, and an objective."""
    directory = tmp_path_factory.mktemp("run")
    sides = {"generated": GENERATED, "target": TARGETS}
    pairs = pa.table({side: list(map(encode, images)) for side, images in sides.items()})
    shards.write_parquet(directory / "pairs.parquet", pairs)
    output = directory / "run"
    flags = [f"--losses={','.join(NAMES)}", f"--objective={OBJECTIVE}", "--quiet", "--precision=float32"]
    assert main([f"--input={directory / 'pairs.parquet'}", f"--output={output}", *flags]) == 0
    return pq.read_table(output / "metrics")


MASKED = ["mae", "ssim", "flip", "ms_ssim"]


@pytest.fixture(scope="module")
def masked_rows(tmp_path_factory):
    """The metrics that a run writes of these pairs within their masks."""
    directory = tmp_path_factory.mktemp("masked")
    patterns = [
        f"--{side}={Path(save(directory, side)[0]).parent}/{side}_*.png" for side in ("generated", "target", "mask")
    ]
    flags = [f"--losses={','.join(MASKED)}", "--crop_border=2", "--quiet"]
    assert main([*patterns, f"--output={directory / 'run'}", *flags]) == 0
    return pq.read_table(directory / "run" / "metrics").sort_by("id")


def save(directory: Path, side: str) -> list[str]:
    images = {"generated": GENERATED, "target": TARGETS, "mask": [mask * np.uint8(255) for mask in MASKS]}[side]
    paths = [directory / f"{side}_{row}.png" for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(encode(image))
    return [str(path) for path in paths]


@pytest.mark.parametrize("kind", ["arrays", "files", "both"])
def test_numbers_of_a_run(rows, tmp_path, kind):
    generated = GENERATED if kind == "arrays" else save(tmp_path, "generated")
    target = save(tmp_path, "target") if kind == "files" else TARGETS
    columns = score(generated, target, NAMES, objective=OBJECTIVE)
    assert list(columns) == [*NAMES, "objective"]
    for name, values in columns.items():
        expected = rows[name].to_numpy(zero_copy_only=False).astype(np.float32)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected, err_msg=name)
    # Null in the run, and not a number here: 10 pixels are too few for SSIM and for VGG16.
    assert np.isnan(columns["ssim"][3])
    assert np.isfinite(columns["mae"][3])
    assert np.isnan(columns["objective"][3])


@pytest.mark.parametrize("in_files", [(), ("mask",), ("generated", "target"), ("generated", "target", "mask")], ids=str)
def test_numbers_of_a_masked_run(masked_rows, tmp_path, in_files):
    given = {"generated": GENERATED, "target": TARGETS, "mask": MASKS}
    given |= {side: save(tmp_path, side) for side in in_files}
    columns = score(**given, losses=MASKED, crop_border=2)
    assert list(columns) == [*MASKED, "mask_coverage"]
    for name, values in columns.items():
        expected = masked_rows[name].to_numpy(zero_copy_only=False).astype(np.float32)
        np.testing.assert_array_equal(values, expected, err_msg=name)
    # It cannot be masked.
    assert np.isnan(columns["ms_ssim"]).all()


@pytest.mark.parametrize("of", [bool, np.uint8, float])
def test_pixels_outside_of_the_mask_do_not_count(of):
    generated, mask = TARGETS[1].copy(), np.zeros(SIZES[1], of)
    mask[:20] = of(0.5) if of is float else 1
    generated[20:] = 0
    assert score(generated, TARGETS[1], "mae", mask=mask) == {"mae": [0], "mask_coverage": [0.5]}
    assert score([generated], [TARGETS[1]], "mae", mask=mask[np.newaxis] == 0)["mae"] > 0.1


def test_shapes():
    batch = np.stack([GENERATED[1], GENERATED[4]]), np.stack([TARGETS[1], TARGETS[4]])
    listed = score([GENERATED[1], GENERATED[4]], (TARGETS[1], TARGETS[4]), ["mae", "ssim"])
    for name, values in score(*batch, ["mae", "ssim"]).items():
        np.testing.assert_array_equal(values, listed[name])
        assert score(batch[0][0], batch[1][0], name)[name] == values[:1]
    assert score(batch[0][:0], batch[1][:0], "mae")["mae"].shape == (0,)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_not_rounded_to_levels(dtype):
    target = np.full((12, 12, 3), 0.5, dtype)
    generated = target.copy()
    generated[0, 0, 0] += dtype(1 / 1024)
    columns = score(generated, target, ["mae", "fd_l1"])
    assert columns["mae"] == pytest.approx([1 / 1024 / target.size], rel=1e-6)
    assert columns["fd_l1"] == pytest.approx([2 / 1024 / (11 * 12 * 3)], rel=1e-6)


# Networks take long at the size that MS-SSIM needs.
@pytest.mark.parametrize(("names", "size"), [(NAMES, (40, 36)), (["ms_ssim"], (170, 164))], ids=["all", "ms_ssim"])
@pytest.mark.parametrize(("dtype", "levels"), [(np.uint8, 255), (np.uint16, 65535)])
def test_floats_of_whole_levels_score_as_the_levels(dtype, levels, names, size):
    shape = (1, *size, 3)
    target, generated = (
        np.random.default_rng(seed).integers(0, levels, shape, dtype, endpoint=True) for seed in (0, 1)
    )
    whole = score(generated, target, names)
    # Float32 rounds the levels.
    for name, values in score(generated / levels, target / levels, names).items():
        np.testing.assert_allclose(values, whole[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_policy(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(encode(TARGETS[1]))
    large.write_bytes(encode(np.pad(TARGETS[1], [(3, 3), (2, 2), (0, 0)])))
    with pytest.raises(ValueError, match="pair size_mismatch: generated is 28x46, target is 24x40"):
        score(large, small, "mae")
    assert score(large, small, "mae", policy=DecodePolicy(size_mismatch="crop"))["mae"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": "lpips"}, "unknown loss 'lpips'"),
        ({"losses": []}, "losses names no loss"),
        ({"losses": ["mae", 3]}, "losses has 3, which is not text; give names from LOSSES"),
        ({"crop_border": 1.5}, "crop_border must be a whole number, 0 or more, not 1.5"),
        ({"objective": "ssim *"}, r"malformed objective 'ssim \*'"),
        (
            {"precision": "float64"},
            "give one of float32, tensorfloat32, bfloat16, float16, auto",
        ),
    ],
)
def test_wrong_requests(options, message):
    with pytest.raises(ValueError, match=message):
        score(GENERATED[1], TARGETS[1], **options)
