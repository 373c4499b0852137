"""Finds pixels that a file lacks and that Pillow leaves as they were instead of raising."""

from io import BytesIO

from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError


class OnBackground(ImageFile):
    """Decodes onto a background instead of zeros, which many pictures contain: where it shows, pixels may be missing.

    Attributes:
        background: the value of every byte of it.
    """

    background = 157

    def load_prepare(self) -> None:
        """Allocate the image and fill it with the background."""
        super().load_prepare()
        self.im.paste((self.background,) * self.im.bands, (0, 0, *self.im.size))


def check_background(image: ImageFile, data: bytes) -> None:
    """Decodes the file a second time on another background if the first may show.

    Args:
        image: loaded, of a class derived from `OnBackground`.
        data: the file.

    Raises:
        DecodeError: `truncated`, if the background shows.
    """
    assert isinstance(image, OnBackground)
    # An interlaced PNG can lack pixels anywhere, every other file lacks its last ones.
    if "interlace" in image.info or last_pixel(image)[-1] & 0xFF == image.background:
        again = type(image)(BytesIO(data))
        again.background = 0
        check_equal(image, again)


def check_equal(image: ImageFile, again: ImageFile) -> None:
    """Compares an image with a second decoding that fills missing pixels with something else.

    Raises:
        DecodeError: `truncated`, if the two differ.
    """
    again.load()
    if again.tobytes() != image.tobytes():
        size = f"{image.width}x{image.height}"
        raise DecodeError("truncated", f"{image.format}: fewer pixels than the {size} of the header.")


def last_pixel(image: ImageFile) -> tuple[int, ...]:
    """Channels of the pixel at the lower right, as stored."""
    width, height = image.im.size
    pixel = image.im.getpixel((width - 1, height - 1))
    return pixel if isinstance(pixel, tuple) else (pixel,)
