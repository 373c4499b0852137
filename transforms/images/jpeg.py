"""JPEG: metadata left alone, and missing data found."""

import re
from io import BytesIO

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from transforms.images.missing_pixels import check_equal, last_pixel

_SCAN_END = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")
# Entropy-coded rubbish: bits for a few blocks, then the same behind every restart marker.
_RUBBISH = bytes(range(17, 81)) + b"".join(bytes((0xFF, 0xD0 + n, *range(33, 49))) for n in range(8))


class JpegFile(JpegImageFile):
    """A JPEG whose EXIF block Pillow leaves alone: it would read every tag, just for the resolution.

    Attributes:
        scan_start: where the data of the first scan begins.
    """

    scan_start = 0

    def _open(self) -> None:
        self.info["dpi"] = (72, 72)
        super()._open()
        assert self.fp is not None
        self.scan_start = self.fp.tell()


def check_jpeg(image: ImageFile, data: bytes) -> None:
    """Finds a JPEG whose data ends early although it has an end marker.

    libjpeg fills the missing blocks with mid-gray and only warns. A picture that ends in mid-gray is decoded again
    with rubbish behind its data: if the rubbish shows, data is missing.

    Raises:
        DecodeError: `truncated`.
    """
    assert isinstance(image, JpegFile)
    if {127, 128}.issuperset(last_pixel(image)):
        scan_end = _SCAN_END.search(data, image.scan_start)
        end = scan_end.start() if scan_end else len(data)
        check_equal(image, JpegFile(BytesIO(data[:end] + _RUBBISH + data[end:])))
