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

    def core_within(self, area: Core) -> Core:
        """The pixels of the core that also belong to an area of the picture; there may be none."""
        top, bottom = _overlap(self.core.top, self.core.bottom, area.top, area.bottom, self.rows.start)
        left, right = _overlap(self.core.left, self.core.right, area.left, area.right, self.columns.start)
        return Core(top, bottom, left, right)

    def fill(self, whole: Any, maps: Any, stride: int) -> None:
        """Copy the core of the tile's maps to its place in those of the picture; `stride` as in `Core.of`."""
        of_tile = whole[:, self.rows.start // stride :, self.columns.start // stride :]
        self.core.of(of_tile, stride)[:] = self.core.of(maps, stride)


def _overlap(start: int, stop: int | None, first: int, end: int | None, corner: int) -> tuple[int, int | None]:
    """Start and stop of the positions, counted from the corner, that start to stop and first to end share."""
    start = max(start, first - corner)
    stops = [edge for edge in (stop, None if end is None else end - corner) if edge is not None]
    return start, max(start, min(stops)) if stops else None


def tiles(height: int, width: int, margin: int, step: int, pixels: int) -> Iterator[Tile]:
    """Yield tiles whose cores cover a picture, each pixel once. Where a tile has no margin, the picture ends.

    Args:
        height: of the picture, in pixels.
        width: of the picture.
        margin: least number of pixels around a core.
        step: tiles and cores begin at multiples of it, so that strides of a network meet the same pixels.
        pixels: most pixels of a tile, margin included, unless margins alone have more.
    """
    margin = up(margin, step)
    down, across = core_size(height, width, margin, step, pixels)
    for top, bottom, above, below in _spans(height, down, margin):
        for left, right, before, behind in _spans(width, across, margin):
            core = Core(
                top - above,
                None if bottom == height else bottom - above,
                left - before,
                None if right == width else right - before,
            )
            yield Tile(slice(above, below), slice(before, behind), core)


def core_size(height: int, width: int, margin: int, step: int, pixels: int) -> tuple[int, int]:
    """Height and width of cores whose tiles have at most so many pixels each, and the fewest in all."""
    found = []
    for rows in range(1, -(-height // step) + 1):
        down = up(-(-height // rows), step)
        most = pixels // min(height, down + 2 * margin)
        across = width if most >= width else (most - 2 * margin) // step * step
        if across > 0:
            columns = -(-width // across)
            in_all = (height + 2 * margin * (rows - 1)) * (width + 2 * margin * (columns - 1))
            found.append((in_all, down, up(-(-width // columns), step)))
    return min(found)[1:] if found else (step, step)


def _spans(length: int, size: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Start and stop of each core, and of its tile."""
    for start in range(0, length, size):
        stop = min(start + size, length)
        yield start, stop, max(0, start - margin), min(length, stop + margin)


def up(number: int, step: int) -> int:
    """The number, rounded up to a multiple of the step."""
    return -(-number // step) * step
