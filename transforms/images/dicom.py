"""DICOM: its header read by pydicom, its pixels by tensorflow-io, both of which `pairloss[tensorflow-io]` installs.

DCMTK inside tensorflow-io renders for a screen: it fills missing pixels up, rounds where it inverts or rescales, and
makes every frame. So it gets a file made anew, of the first frame and what is needed to unpack it. tensorflow-io loads
TensorFlow, therefore DICOM is decoded in children of its own; see `dicom_task`.
"""

import struct
from copy import copy
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.jpeg import check_jpeg_stream
from transforms.images.sixteen_bits import scaled
from transforms.worker.tensorflow_import import import_tensorflow

DICOM_SUPPORTED = find_spec("tensorflow_io") is not None and find_spec("pydicom") is not None

# A preamble for any use, then the magic (DICOM PS3.10, 7.1).
_PREAMBLE, _MAGIC = 128, b"DICM"

# Pillow's mode for a photometric interpretation.
_MODES = {
    "MONOCHROME1": "L",
    "MONOCHROME2": "L",
    "PALETTE COLOR": "P",
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), "RGB"),
}
# Transfer syntaxes by the names that pydicom gives them.
_NATIVE = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian")
_JPEG = "JPEGBaseline8Bit"
# JPEGs of other kinds, whose damage nobody reports.
_UNCHECKED = ("JPEGExtended12Bit", "JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEGLSNearLossless")
_RUNS = "RLELossless"
_COMPRESSED = (_JPEG, *_UNCHECKED, "JPEG2000Lossless", "JPEG2000", _RUNS)
# Markers of JPEG and JPEG-LS before a frame's height and width.
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
# The elements that pixels are unpacked by.
_UNPACKING = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation"),
    *(
        f"{prefix}{color}PaletteColorLookupTable{part}"
        for color in ("Red", "Green", "Blue")
        for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
)
# The elements that would change values for a screen or into a unit; a rescale by 1 and 0 does not.
_DISPLAY = {
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
    "WindowCenter": None,
    "ModalityLUTSequence": None,
    "VOILUTSequence": None,
}


def is_dicom(data: Any) -> bool:
    """True for the bytes, or a buffer of them, of a DICOM file that can be decoded here."""
    return DICOM_SUPPORTED and bytes(data[_PREAMBLE : _PREAMBLE + len(_MAGIC)]) == _MAGIC


class _DicomImage(ImageFile):
    """A file whose elements have been parsed, as pydicom's data set `elements`."""

    format = "DICOM"

    def _open(self) -> None:
        from pydicom import dcmread

        elements = self.elements = dcmread(self.fp)
        if not elements:
            raise DecodeError("truncated", "DICOM: it ends before its elements do.")
        self.is_animated = _frames(elements) > 1
        self._size = elements.get("Columns", 0), elements.get("Rows", 0)
        photometric = elements.get("PhotometricInterpretation", "")
        self._mode = _MODES.get(photometric, "")
        if "ICCProfile" in elements:
            self.info["icc_profile"] = elements.ICCProfile
        if not photometric:
            raise DecodeError("zero_size", "DICOM without a picture.")
        stored, allocated = elements.get("BitsStored", 0), elements.get("BitsAllocated", 0)
        syntax = _syntax(elements)
        if not self.mode or syntax not in _NATIVE + _COMPRESSED or not (0 < stored <= allocated in (8, 16)):
            message = f"DICOM: {photometric}, {stored} of {allocated} bits, {syntax or 'unknown syntax'}."
            raise DecodeError("unsupported_mode", message)
        if "PixelData" not in elements:
            raise DecodeError("truncated", "DICOM: it ends before its pixels.")


def open_dicom(data: bytes) -> ImageFile:
    """Parses a DICOM file.

    Raises:
        DecodeError: `unsupported_mode`, for another layout of pixels than those above; `zero_size`, for no picture;
            `truncated`, for one without pixels.
    """
    return _DicomImage(BytesIO(data))


def load_dicom(image: ImageFile, *_: Any) -> np.ndarray:
    """The first frame as it is stored, [H, W, 1] or [H, W, 3]: uint8 for up to 8 bits, otherwise uint16.

    The least value that the stored bits can hold becomes 0, the greatest 255 or 65535; MONOCHROME1 is inverted.

    Raises:
        DecodeError: `truncated` or `corrupt`.
    """
    assert isinstance(image, _DicomImage)
    library = load_library()
    kind = np.uint8 if dicom_bits(image) <= 8 else np.uint16
    frames = library.image.decode_dicom_image(
        _first_frame(image.elements), color_dim=True, on_error="skip", scale="preserve", dtype=kind
    ).numpy()
    if not len(frames):
        raise DecodeError("corrupt", "DICOM: its pixels cannot be unpacked.")
    samples = scaled(frames[0], 2 ** dicom_bits(image) - 1)
    return np.iinfo(kind).max - samples if _is_inverted(image) else samples


def dicom_bits(image: ImageFile, *_: Any) -> int:
    """Bits per sample that are used, of a palette those of its colours."""
    assert isinstance(image, _DicomImage)
    palette = image.elements.RedPaletteColorLookupTableDescriptor if image.mode == "P" else None
    return int(palette[2] if palette else image.elements.BitsStored)


def dicom_notes(image: ImageFile, *_: Any) -> tuple[str, ...]:
    """Keys of `decode.NOTES`."""
    assert isinstance(image, _DicomImage)
    elements = image.elements
    ignored = any(name in elements and elements[name].value != neutral for name, neutral in _DISPLAY.items())
    return (
        *(("inverted",) if _is_inverted(image) else ()),
        *(("stored_values",) if ignored else ()),
        *(("unchecked",) if _syntax(elements) in _UNCHECKED else ()),
    )


def load_library() -> Any:
    """The package tensorflow_io, with its native code loaded.

    Raises:
        DecodeError: `unsupported_format`, where it does not load, as beside a TensorFlow that it was not built for.
    """
    import_tensorflow()
    try:
        import tensorflow_io

        tensorflow_io.image.decode_dicom_image  # noqa: B018
    except (ImportError, NotImplementedError) as error:
        message = (
            f'tensorflow-io does not load here ({error}): pip install "pairloss[tensorflow-io]" into an environment of '
            "its own on every worker."
        )
        raise DecodeError("unsupported_format", message) from error
    return tensorflow_io


def _first_frame(elements: Any) -> bytes:
    """A file of nothing but the first frame."""
    from pydicom import FileDataset, FileMetaDataset, dcmwrite
    from pydicom.encaps import encapsulate, get_frame
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import get_expected_length
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kept = [copy(elements[name]) for name in _UNPACKING if name in elements]
    made = FileDataset("", {element.tag: element for element in kept}, file_meta=meta)
    if _MODES[elements.PhotometricInterpretation] == "L":
        made.PhotometricInterpretation = "MONOCHROME2"
    syntax, pixels, frames = _syntax(elements), elements.PixelData, _frames(elements)
    if syntax == _RUNS:
        # DCMTK would leave pixels without runs as they are.
        unpacked, properties = get_decoder(elements.file_meta.TransferSyntaxUID).as_buffer(elements, index=0)
        made.PixelData = bytes(unpacked)
        made.PlanarConfiguration = properties.get("planar_configuration", 0)
    elif syntax in _NATIVE:
        length = get_expected_length(made)
        if len(pixels) < length * frames:
            raise DecodeError("truncated", f"DICOM: {len(pixels)} of {length * frames} bytes of pixels.")
        made.PixelData = pixels[:length]
    else:
        frame = get_frame(pixels, 0, number_of_frames=frames)
        _check_size(frame, syntax, (made.Columns, made.Rows))
        meta.TransferSyntaxUID = elements.file_meta.TransferSyntaxUID
        made.PixelData = encapsulate([frame])
        made["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def _check_size(frame: bytes, syntax: str, size: tuple[int, int]) -> None:
    """Raises DecodeError for a JPEG that covers less than the picture: DCMTK would leave the rest as it is."""
    if syntax == _JPEG:
        check_jpeg_stream(frame, size)
    elif syntax in _UNCHECKED and (found := _jpeg_size(frame)) != size:
        raise DecodeError("corrupt", f"DICOM: two headers, of {size} and {found} pixels.")


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG or JPEG-LS, by the segments before its data."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] in _FRAMES:
            height, width = struct.unpack_from(">HH", frame, at + 5)
            return width, height
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _frames(elements: Any) -> int:
    return int(elements.get("NumberOfFrames") or 1)


def _syntax(elements: Any) -> str:
    return getattr(elements.file_meta.get("TransferSyntaxUID"), "keyword", "")


def _is_inverted(image: _DicomImage) -> bool:
    return image.elements.PhotometricInterpretation == "MONOCHROME1"
