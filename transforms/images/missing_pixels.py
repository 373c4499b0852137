"""Finds pixels that a file lacks and that Pillow leaves as they were instead of raising."""

from collections.abc import Callable

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


def check_background(image: ImageFile, _: bytes, reopen: Callable[[], ImageFile]) -> None:
    """Decodes the file a second time on another background if the first may show.

    Args:
        image: loaded, of a class derived from `OnBackground`.
        reopen: opens the same file again.

    Raises:
        DecodeError: `truncated`, if the background shows.
    """
    assert isinstance(image, OnBackground)
    # An interlaced PNG can lack pixels anywhere, every other file lacks its last ones.
    if "interlace" not in image.info and _last_value(image) & 0xFF != image.background:
        return
    again = reopen()
    assert isinstance(again, OnBackground)
    again.background = 0
    again.load()
    if again.tobytes() != image.tobytes():
        size = f"{image.width}x{image.height}"
        raise DecodeError("truncated", f"{image.format}: fewer pixels than the {size} of the header.")


def _last_value(image: ImageFile) -> int:
    """Last channel of the pixel at the lower right, as stored."""
    width, height = image.im.size
    pixel = image.im.getpixel((width - 1, height - 1))
    return int(pixel[-1] if isinstance(pixel, tuple) else pixel)
