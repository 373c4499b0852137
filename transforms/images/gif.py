"""GIF: without the comments and application data that Pillow would gather, slower and slower the more there are."""

from io import BytesIO

from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError

_EXTENSION, _IMAGE = 0x21, 0x2C
_COMMENT, _APPLICATION, _TEXT = 0xFE, 0xFF, 0x01
_FRAMES_READ = 2  # the second tells whether there are several
# The largest picture that is taken has 50,000 blocks of pixels; walking more takes long.
_MOST_BLOCKS = 1_000_000


def open_gif(data: bytes) -> ImageFile:
    """Opens a GIF without what is not pixels. Layout: GIF89a specification, appendix A.

    Raises:
        DecodeError: `corrupt`, for more blocks than any picture has; `unsupported_mode`, for a picture without a table
            of colours, of which Pillow makes one of grays.
    """
    kept, cut, frames, blocks = [], 0, 0, 0
    at = 13 + _table_bytes(data[10:11])
    while at + 1 < len(data) and frames < _FRAMES_READ:
        start = at
        if data[at] == _IMAGE:
            frames += 1
            own = _table_bytes(data[at + 9 : at + 10])
            if frames == 1 and not own and not _table_bytes(data[10:11]):
                raise DecodeError("unsupported_mode", "GIF: no table says which colours its numbers stand for.")
            at += 11 + own
        elif data[at] == _EXTENSION:
            at += 2
        else:
            break
        while at < len(data) and data[at] and blocks <= _MOST_BLOCKS:
            at += 1 + data[at]
            blocks += 1
        at += 1
        blocks += 1
        if blocks > _MOST_BLOCKS:
            raise DecodeError("corrupt", f"GIF: more than {_MOST_BLOCKS} blocks.")
        if data[start] == _EXTENSION and data[start + 1] in (_COMMENT, _APPLICATION, _TEXT):
            if cut < start:
                kept.append(data[cut:start])
            cut = at
    return GifImageFile(BytesIO(b"".join((*kept, data[cut:])) if kept else data))


def _table_bytes(flags: bytes) -> int:
    """Size of the table of colours that flags announce."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
