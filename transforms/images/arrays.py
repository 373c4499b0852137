"""Arrays as images: NumPy's .npy, and .npz with one array. Their range and layout are declared, never guessed."""

import lzma
import struct
import zipfile
import zlib
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np

from transforms.images.decode_error import DecodeError

# zipfile raises these for damage.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError),
    *(zlib.error, struct.error, lzma.LZMAError),
)
_NPY_MAGIC = b"\x93NUMPY"
_NPZ_MAGIC = b"PK\x03\x04"

# The values of an array that stand for black and white.
RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0), "0..65535": (0.0, 65535.0)}
LAYOUTS = ("hwc", "chw")
_WHOLE = {"0..255": np.uint8, "0..65535": np.uint16}


def is_array(data: bytes) -> bool:
    """Tell whether a file is a .npy or .npz, by its first bytes."""
    if data.startswith(_NPZ_MAGIC):
        # The first member's name follows its header of 30 bytes.
        return data[30 : 30 + int.from_bytes(data[26:28], "little")].endswith(b".npy")
    return data.startswith(_NPY_MAGIC)


def decode_array(data: bytes, range: str, layout: str, max_pixels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels of an array, and notes.

    Args:
        data: the file.
        range: a key of `RANGES`; empty: it was not declared.
        layout: one of `LAYOUTS`; an array of two dimensions is gray in both.
        max_pixels: most pixels.

    Returns:
        [H, W, 3]: uint8 or uint16 if the values are whole numbers of that range, else float32 in [0, 1].

    Raises:
        DecodeError: the array cannot be read, does not have the shape of an image, or has values outside the range.
    """
    if not range:
        message = f"an array needs a declared range of values: --range={' or '.join(RANGES)}."
        raise DecodeError("undeclared_range", message)
    array = _read_npy(_unpacked(data, max_pixels) if data.startswith(_NPZ_MAGIC) else data, max_pixels)
    notes: tuple[str, ...] = ()
    array = array if array.ndim == 2 or layout == "hwc" else np.moveaxis(array, 0, -1)
    if array.ndim == 2 or array.shape[2] == 1:
        notes += ("gray",)
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] != 3:
        raise DecodeError(
            "unsupported_mode", f"an array of shape {array.shape} with the layout {layout} is not an image."
        )
    low, high = array.min(), array.max()
    least, largest = RANGES[range]
    if not (least <= low and high <= largest):
        raise DecodeError("outside_range", f"values from {low:.9g} to {high:.9g} lie outside {range}.")
    if _looks_like(low, high, range):
        notes += ("other_range",)
    if low == high:
        notes += ("constant",)
    if range in _WHOLE and (array.dtype.kind in "iu" or not np.any(array % 1)):
        return np.ascontiguousarray(array, _WHOLE[range]), notes
    return np.ascontiguousarray((array.astype(np.float64) - least) / (largest - least), np.float32), notes


def _looks_like(low: float, high: float, range: str) -> bool:
    """True if the values would as well be those of another range."""
    return high <= 1 if range in _WHOLE else range == "-1..1" and low >= 0


def _read_npy(data: bytes, max_pixels: int) -> np.ndarray:
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran_order, dtype = read_header[version](file)
    except (ValueError, KeyError, SyntaxError, RecursionError, TypeError, TokenError) as error:
        raise DecodeError("corrupt", f"not a .npy file: {error}") from error
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise DecodeError("unsupported_mode", f"an array of {dtype} is not an image.")
    if len(shape) not in (2, 3) or 0 in shape:
        raise DecodeError("unsupported_mode", f"an array of shape {shape} is not an image; give [H, W] or [H, W, 3].")
    count = int(np.prod(shape, dtype=object))
    if count > 3 * max_pixels:
        raise DecodeError("too_many_pixels", f"the array has the shape {shape}; max_image_pixels is {max_pixels}.")
    if len(data) - file.tell() < count * dtype.itemsize:
        raise DecodeError("truncated", f"{len(data) - file.tell()} bytes are not the array of shape {shape}.")
    values = np.frombuffer(data, dtype, count, file.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")


def _unpacked(data: bytes, max_pixels: int) -> bytes:
    """The one array of a .npz."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if len(names) != 1:
                listed = ", ".join(names[:5])
                raise DecodeError("unsupported_mode", f"a .npz with {len(names)} arrays ({listed}); one is needed.")
            most = 3 * 8 * max_pixels + 65536
            if archive.infolist()[0].file_size > most:
                raise DecodeError("too_many_pixels", f"the .npz unpacks to more than {most} bytes.")
            with archive.open(names[0]) as file:
                return file.read(most)
    except _ZIP_ERRORS as error:
        raise DecodeError("corrupt", f"not a .npz file: {error}") from error
