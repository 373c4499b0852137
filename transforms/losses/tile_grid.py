"""How a large picture is cut into tiles, so that memory does not grow with the picture. Free of TensorFlow."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Core(NamedTuple):
    """The pixels of a tile without its margin, counted from the tile's corner; None: up to the tile's edge."""

    top: int = 0
    bottom: int | None = None
    left: int = 0
    right: int | None = None

    def of(self, maps: Any, stride: int = 1) -> Any:
        """The positions of a tile's maps [B, h, w, ...] that belong to the core; `stride` pixels lie between two."""
        rows, columns = (
            slice(start // stride, None if stop is None else stop // stride)
            for start, stop in ((self.top, self.bottom), (self.left, self.right))
        )
        return maps[:, rows, columns]


class Tile(NamedTuple):
    """A part of a picture.

    Attributes:
        rows: of the picture, margin included.
        columns: as `rows`.
        core: where the tile without its margin lies in it.
    """

    rows: slice
    columns: slice
    core: Core


def tiles(
    height: int, width: int, margin: int, step: int, pixels: int, band: tuple[int, int] | None = None
) -> Iterator[Tile]:
    """Yield tiles whose cores cover a picture, each pixel once. Where a tile has no margin, the picture ends.

    Args:
        height: of the picture, in pixels.
        width: of the picture.
        margin: least number of pixels around a core.
        step: tiles and cores begin at multiples of it, so that strides of a network meet the same pixels.
        pixels: most pixels of a tile, margin included, unless margins alone have more.
        band: the first row to cover, a multiple of the step, and the row behind the last; None: all.
    """
    margin = up(margin, step)
    begin, end = band or (0, height)
    down, across = core_size(end - begin, width, margin, step, pixels, height)
    for top, bottom, above, below in _spans(begin, end, height, down, margin):
        for left, right, before, behind in _spans(0, width, width, across, margin):
            core = Core(
                top - above,
                None if bottom == height else bottom - above,
                left - before,
                None if right == width else right - before,
            )
            yield Tile(slice(above, below), slice(before, behind), core)


def core_size(height: int, width: int, margin: int, step: int, pixels: int, tallest: int) -> tuple[int, int]:
    """Height and width of cores whose tiles have at most `pixels` each, and the fewest in all.

    They cover an area of this height and width; the picture, and so a tile, is at most `tallest` rows high.
    """
    found = []
    for rows in range(1, -(-height // step) + 1):
        down = up(-(-height // rows), step)
        most = pixels // min(tallest, down + 2 * margin)
        across = width if most >= width else (most - 2 * margin) // step * step
        if across > 0:
            columns = -(-width // across)
            in_all = (height + 2 * margin * (rows - 1)) * (width + 2 * margin * (columns - 1))
            found.append((in_all, down, up(-(-width // columns), step)))
    return min(found)[1:] if found else (step, step)


def _spans(begin: int, end: int, length: int, size: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Start and stop of each core from begin to end, and of its tile."""
    for start in range(begin, end, size):
        stop = min(start + size, end)
        yield start, stop, max(0, start - margin), min(length, stop + margin)


def up(number: int, step: int) -> int:
    """The number, rounded up to a multiple of the step."""
    return -(-number // step) * step
