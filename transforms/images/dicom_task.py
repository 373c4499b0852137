"""The task that decodes pairs with a DICOM file among them, in children that load TensorFlow; no others do."""

import os
from contextlib import suppress

from transforms.images.decode_error import DecodeError
from transforms.images.dicom import load_library
from transforms.images.jpeg_task import decode_records
from transforms.worker.threads import VARIABLE

__all__ = ["decode_records"]

# The GPUs are the worker's, and its threads have a child each.
os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", VARIABLE: "1"}
with suppress(DecodeError):
    # Here, where no record pays for the threads; where it does not load, every record tells why.
    load_library().image.decode_dicom_image(b"")
