"""Import TensorFlow without its log messages, and set its number of threads."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from transforms.worker.garbage import made_to_stay
from transforms.worker.threads import thread_count

# A worker may run several threads, which come here at the same time.
_lock = Lock()

# The module of Keras that TensorFlow imports.
_OF_KERAS = "keras.src.optimizers"


def import_tensorflow() -> None:
    """Import TensorFlow, give it `thread_count` threads, and let it look for GPUs; the first import takes seconds.

    TensorFlow 2.21 logs while it is imported, before it reads TF_CPP_MIN_LOG_LEVEL. If that variable asks for fewer
    messages, standard error is redirected during the import; Python's exceptions still come through.
    """
    with _lock:
        if "tensorflow" not in sys.modules:
            _import_quietly()


def _import_quietly() -> None:
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        _import()
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        _import()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _import() -> None:
    with _without_keras(), made_to_stay():
        import tensorflow

    # By default TensorFlow uses every CPU, whatever the container's quota.
    tensorflow.config.threading.set_intra_op_parallelism_threads(thread_count())
    tensorflow.config.threading.set_inter_op_parallelism_threads(thread_count())
    tensorflow.config.list_physical_devices()


@contextmanager
def _without_keras() -> Iterator[None]:
    """Keep TensorFlow from importing Keras, which it does in its last lines and takes a third of its whole time.

    It goes on without. `tensorflow.keras` and `keras` are imported when somebody asks for them.
    """
    if "keras" in sys.modules:
        yield
        return
    # Python refuses to import a module that is None here.
    sys.modules[_OF_KERAS] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_OF_KERAS]
