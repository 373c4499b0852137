"""Import TensorFlow without its chatter."""

import os
import sys


def import_tensorflow() -> None:
    """Import TensorFlow and let it look for GPUs; the first import of a process takes seconds.

    TensorFlow 2.21 logs on its way in, before it reads TF_CPP_MIN_LOG_LEVEL. Where that variable asks for less than
    everything, standard error is closed to C++ code meanwhile; Python's exceptions come through all the same.
    """
    if "tensorflow" in sys.modules:
        return
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        import tensorflow

        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow

        tensorflow.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
