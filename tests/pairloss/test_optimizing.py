"""`optimize` descends as a run does."""

import numpy as np
import pytest
from support.pictures import encode, noise, smooth

from pairloss import Descent, optimize, score

pytestmark = pytest.mark.heavy

OBJECTIVE = "fd_l2 + mse"
DESCENT = Descent(max_steps=8, max_change=0.1)
TARGETS = [smooth(20, 24), smooth(12, 12, shift=3), smooth(20, 24, shift=5)]
GENERATED = [target // 4 * 3 + noise(row, *target.shape[:2]) // 4 for row, target in enumerate(TARGETS)]


def test_images_and_columns():
    images, columns = optimize(GENERATED, TARGETS, OBJECTIVE, descent=DESCENT)
    assert [(image.shape, image.dtype) for image in images] == [(image.shape, np.uint8) for image in TARGETS]
    for image, start in zip(images, GENERATED, strict=True):
        assert 0 < np.abs(image.astype(int) - start).max() <= DESCENT.max_levels
    assert (columns["objective_final"] < 0.7 * columns["objective_initial"]).all()
    assert columns["steps"].tolist() == [8, 8, 8]
    assert set(columns["stop_reason"]) == {"max_steps"}
    # A pair's result does not depend on the others.
    (alone,), _ = optimize(GENERATED[2], TARGETS[2], OBJECTIVE, descent=DESCENT)
    np.testing.assert_array_equal(alone, images[2])
    for start, images_scored in (("objective_initial", GENERATED), ("objective_of_saved", images)):
        found = score(images_scored, TARGETS, (), objective=OBJECTIVE)["objective"]
        np.testing.assert_allclose(columns[start], found, rtol=1e-5)


def test_files_and_none(tmp_path):
    for name, image in (("generated", GENERATED[1]), ("target", TARGETS[1])):
        (tmp_path / f"{name}.png").write_bytes(encode(image))
    (image,), _ = optimize(tmp_path / "generated.png", tmp_path / "target.png", OBJECTIVE, descent=DESCENT)
    (expected,), _ = optimize(GENERATED[1], TARGETS[1], OBJECTIVE, descent=DESCENT)
    np.testing.assert_array_equal(image, expected)
    images, columns = optimize([], [], OBJECTIVE)
    assert images == []
    assert columns["steps"].shape == (0,)


@pytest.mark.parametrize(
    ("images", "objective", "message"),
    [
        (np.zeros((8, 8, 3)), "mse", r"pair 0 holds floats; .* give np\.rint\(images \* 255\)"),
        (np.zeros((8, 9, 3), np.uint8), "mse - ssim", "pair 0 is 9x8; the objective needs sides of 11 pixels or more"),
        (np.zeros((8, 8, 3), np.uint8), "psnr", "psnr has no usable gradient; take mae or mse"),
    ],
)
def test_refusals(images, objective, message):
    with pytest.raises(ValueError, match=message):
        optimize(images, images, objective)
