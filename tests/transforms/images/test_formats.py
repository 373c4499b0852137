"""An image format is one row."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from PIL.PcxImagePlugin import PcxImageFile
from PIL.SgiImagePlugin import SgiImageFile
from support.decoded import reason
from support.pictures import encode, smooth

from transforms.images import formats
from transforms.images.decode import DecodeError, DecodePolicy, decode_image
from transforms.images.formats import IMAGE_FORMATS, ImageFormat, with_pillow
from transforms.images.pairs import decode_pair

ROWS = {
    "PCX": ImageFormat("PCX", rb"\x0a[\0\2\3\5]\x01", with_pillow(PcxImageFile)),
    "SGI": ImageFormat("SGI", rb"\x01\xda", with_pillow(SgiImageFile)),
}


@pytest.mark.parametrize("name", ROWS)
def test_one_more_row_is_one_more_format(monkeypatch, name):
    picture = smooth(40, 56)
    data = encode(picture, name)
    with pytest.raises(DecodeError) as failure:
        decode_image(data, DecodePolicy())
    assert failure.value.reason == "unknown_format"
    monkeypatch.setattr(formats, "IMAGE_FORMATS", (*IMAGE_FORMATS, ROWS[name]))
    pair = decode_pair(data, encode(picture), DecodePolicy())
    np.testing.assert_array_equal(pair.generated, pair.target)
    assert pair.notes == ()
    with pytest.raises(DecodeError) as failure:
        decode_image(data, DecodePolicy(max_image_pixels=40 * 56 - 1))
    assert failure.value.reason == "too_many_pixels"
    with pytest.raises(DecodeError) as failure:
        decode_image(data[: len(data) // 2], DecodePolicy())
    assert failure.value.reason in {"truncated", "corrupt"}


def test_names_are_told_apart_and_a_refusal_lists_what_is_read():
    names = [row.name for row in IMAGE_FORMATS]
    assert len(set(names)) == len(names)
    with pytest.raises(DecodeError) as failure:
        decode_image(b"%PDF-1.7", DecodePolicy())
    for row in IMAGE_FORMATS:
        assert (f" {row.name}," in failure.value.message.replace(".", ",")) == (row.open is not None)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF"])
def test_a_row_names_the_format_of_what_pillow_writes(name):
    data = encode(smooth(9, 9), name)
    assert formats.sniff(data).name == name
    assert Image.open(BytesIO(data)).format.lower() == name.lower()


def test_a_web_page_with_a_drawing_is_no_svg():
    assert reason(b"<!DOCTYPE html><html><body>404 <svg/></body></html>") == "unknown_format"
    assert reason(b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg/>') == "unsupported_format"
