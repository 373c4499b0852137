"""TensorFlow is imported once, by whichever thread of a worker comes first, and the others wait for it."""

import subprocess
import sys
import threading
import time
from types import ModuleType

import pytest

from transforms.worker import tensorflow_import


@pytest.mark.parametrize("level", ["0", "3"])
def test_threads_that_come_at_once(monkeypatch, level):
    imported = []

    def slowly() -> None:
        # As Python does: the module is listed while it is still being made.
        sys.modules["tensorflow"] = ModuleType("tensorflow")
        time.sleep(0.2)
        imported.append("whole")

    def work() -> None:
        tensorflow_import.import_tensorflow()
        found.append(list(imported))

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("to be put back"))
    del sys.modules["tensorflow"]
    monkeypatch.setattr(tensorflow_import, "_import", slowly)
    found: list[list[str]] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["whole"]] * 4


@pytest.mark.heavy
def test_keras_is_imported_by_those_who_use_it():
    """TensorFlow imports it, which takes a third of the time, and scores without it."""
    program = """
import sys
from transforms.worker.tensorflow_import import import_tensorflow
import_tensorflow()
import tensorflow as tf
assert not [name for name in sys.modules if name.partition(".")[0] == "keras"]
from tensorflow.keras.optimizers import SGD
import keras
assert SGD is keras.optimizers.SGD is tf.keras.optimizers.SGD
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
