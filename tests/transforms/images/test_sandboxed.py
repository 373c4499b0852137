"""Pairs decoded in a sandbox: the same pixels and the same errors, and pictures that would take the process down."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bombs import SPIN, environment_with_bugs, huge_png
from support.pictures import encode, noise, smooth

from transforms.images.decode import DecodeError, DecodePolicy
from transforms.images.pairs import DecodedPair
from transforms.images.sandboxed import decode_pairs
from transforms.worker.sandbox import Sandbox

POLICY = DecodePolicy(size_mismatch="crop")
GOOD = encode(smooth(20, 30))


def pairs() -> list[tuple[bytes | None, bytes | None]]:
    return [
        (GOOD, encode(noise(1, 20, 30))),
        (GOOD, encode(noise(1, 16, 40), "JPEG")),
        (encode(np.full((20, 30), 77, np.uint8)), GOOD),
        (encode(np.full((20, 30), 7777, np.uint16)), GOOD),
        (None, GOOD),
        (GOOD, b""),
        (b"no picture", GOOD),
        (GOOD, GOOD[:100]),
    ]


def test_it_decodes_as_the_worker_itself_would() -> None:
    inside, outside = (decode_pairs(pairs(), POLICY, Sandbox(enabled=enabled)) for enabled in (True, False))
    for one, other in zip(inside, outside, strict=True):
        if isinstance(other, DecodeError):
            assert isinstance(one, DecodeError)
            assert (one.reason, one.message, one.image) == (other.reason, other.message, other.image)
        else:
            assert isinstance(one, DecodedPair)
            assert one.notes == other.notes
            for a, b in ((one.generated, other.generated), (one.target, other.target)):
                assert a.dtype == b.dtype
                assert np.array_equal(a, b)
    assert sum(isinstance(outcome, DecodedPair) for outcome in inside) == 4


@pytest.mark.parametrize(
    ("image", "checked"),
    [
        (GOOD, False),
        (encode(smooth(20, 30), "WEBP"), False),
        (encode(smooth(20, 30), "JPEG"), True),
        (encode(smooth(20, 30), "TIFF", compression="jpeg"), True),
        (GOOD[:2], False),
        (None, False),
    ],
    ids=["png", "webp", "jpeg", "tiff", "two bytes", "null"],
)
def test_children_import_the_check_of_jpegs_before_its_time_counts(
    image: bytes | None, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only if there are any: compiled code takes a second."""
    tasks = set()
    each = Sandbox.each

    def noted(sandbox: Sandbox, task: str, arguments: Any, records: Any, apart: bool) -> Iterator[Any]:
        if records:
            tasks.add(task.partition(":")[0])
        return each(sandbox, task, arguments, records, apart)

    monkeypatch.setattr(Sandbox, "each", noted)
    for pair in ((image, GOOD, GOOD), (GOOD, image, GOOD), (GOOD, GOOD, image)):
        decode_pairs([(GOOD, GOOD, GOOD), pair], POLICY, Sandbox())
    (task,) = tasks
    code = f"import sys, {task}; print('transforms.images.jpeg_entropy' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == f"{checked}\n"
    )


@pytest.mark.heavy
def test_the_import_of_the_check_takes_no_time_of_a_picture() -> None:
    """The time of the picture that its child decoded before is not charged, either."""
    sandbox, jpeg = Sandbox(seconds=0.2), encode(smooth(20, 30), "JPEG")
    for image in (GOOD, jpeg, GOOD, jpeg):
        (pair,) = decode_pairs([(image, image)], POLICY, sandbox)
        assert isinstance(pair, DecodedPair), pair


@pytest.mark.heavy
def test_a_picture_that_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_with_bugs(tmp_path / "site")
    # Children get the path of their worker.
    monkeypatch.syspath_prepend(tmp_path / "site")
    # Good pictures take milliseconds, this one for ever.
    found = decode_pairs([(GOOD, GOOD), (GOOD, SPIN), (GOOD, GOOD)], POLICY, Sandbox(seconds=1.5))
    assert [getattr(outcome, "reason", "decoded") for outcome in found] == ["decoded", "timed_out", "decoded"]


@pytest.mark.heavy
def test_a_picture_that_takes_gigabytes() -> None:
    policy, bomb = DecodePolicy(max_image_pixels=2**30), huge_png()
    found = decode_pairs([(bomb, GOOD), (GOOD, GOOD)], policy, Sandbox(memory=200 << 20))
    assert [getattr(outcome, "reason", "decoded") for outcome in found] == ["out_of_memory", "decoded"]


def test_large_pictures_need_no_shared_memory() -> None:
    """Containers have 64 MiB of it; what comes of these is more than twice 144 MB."""
    large = encode(np.zeros((6000, 8000, 3), np.uint8))
    (pair,) = decode_pairs([(large, large)], DecodePolicy(max_image_pixels=48_000_000), Sandbox())
    assert isinstance(pair, DecodedPair)
    assert pair.target.shape == (6000, 8000, 3)


@pytest.mark.parametrize("member", ["generated", "target"])
def test_too_many_bytes_are_not_even_copied(member: str) -> None:
    policy = DecodePolicy(max_image_bytes=1000)
    long = b"x" * 1001
    pair = (long, b"y") if member == "generated" else (b"y", long)
    (error,) = decode_pairs([pair], policy, Sandbox())
    assert isinstance(error, DecodeError)
    assert (error.reason, error.image, error.message) == (
        "too_many_bytes",
        member,
        "1001 bytes; max_image_bytes is 1000.",
    )


def mask(height: int = 20, width: int = 30) -> np.ndarray:
    """A mask with every level that matters: bool on the right."""
    levels = np.full((height, width), 127, np.uint8)
    levels[:, width // 2 :] = 128
    return levels


@pytest.mark.parametrize(
    ("image", "reason", "member"),
    [
        (encode(mask(20, 31)), "mask_mismatch", "mask"),
        (encode(mask(20, 30))[:60], "truncated", "mask"),
        (b"no picture", "unknown_format", "mask"),
        (b"", "empty_bytes", "mask"),
        (None, "null_image", "mask"),
        (b"x" * 10_001, "too_many_bytes", "mask"),
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_a_bad_mask_costs_its_pair(image: bytes | None, reason: str, member: str, enabled: bool) -> None:
    policy, good = DecodePolicy(max_image_bytes=10_000), encode(mask())
    found = decode_pairs(
        [(GOOD, GOOD, good), (GOOD, GOOD, image), (GOOD, None, good)], policy, Sandbox(enabled=enabled)
    )
    first, second, third = found
    assert isinstance(first, DecodedPair)
    assert isinstance(second, DecodeError)
    assert isinstance(third, DecodeError)
    np.testing.assert_array_equal(first.mask, mask() > 127)
    assert (second.reason, second.image) == (reason, member)
    assert (third.reason, third.image) == ("null_image", "target")


def test_masks_of_every_kind() -> None:
    """16 bits, colours, an array, and one bit; only what is unusual leaves a note."""
    sixteen = np.where(mask() > 127, 32768, 32767).astype(np.uint16)
    colors = np.stack([mask(), mask(), mask() // 127 * 255], axis=2)
    transparent = np.stack([mask() * 0, mask() * 0, mask() * 0, np.where(mask() > 127, 0, 255)], axis=2)
    images = [encode(sixteen), encode(colors), encode(transparent.astype(np.uint8))]
    found = decode_pairs([(GOOD, GOOD, image) for image in images], DecodePolicy(), Sandbox())
    for pair in found:
        assert isinstance(pair, DecodedPair)
    notes = [pair.notes for pair in found if isinstance(pair, DecodedPair)]
    assert notes == [("mask:16bit",), (), ("mask:alpha",)]
    for number in (0, 2):
        np.testing.assert_array_equal(getattr(found[number], "mask"), mask() > 127)  # noqa: B009


def test_a_mask_is_cropped_with_its_target_and_belongs_to_half_a_picture() -> None:
    (pair,) = decode_pairs([(encode(noise(1, 16, 24)), GOOD, encode(mask()))], POLICY, Sandbox())
    assert isinstance(pair, DecodedPair)
    np.testing.assert_array_equal(pair.mask, mask()[2:18, 3:27] > 127)
    (pair,) = decode_pairs([(GOOD, None, encode(mask(20, 15)))], DecodePolicy(split="horizontal"), Sandbox())
    assert isinstance(pair, DecodedPair)
    np.testing.assert_array_equal(pair.mask, mask(20, 15) > 127)


def test_candidates_share_a_mask_only_if_it_is_theirs() -> None:
    whole, good = encode(np.full((20, 30), 255, np.uint8)), encode(mask())
    pairs = [(GOOD, GOOD, good), (encode(noise(1, 20, 30)), GOOD, good), (GOOD, GOOD, whole)]
    found = decode_pairs(pairs, POLICY, Sandbox())
    assert [pair.mask.mean() for pair in found if isinstance(pair, DecodedPair) and pair.mask is not None] == [
        0.5,
        0.5,
        1,
    ]
