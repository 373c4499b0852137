"""TensorFlow is imported once, by whichever thread of a worker comes first, and the others wait for it."""

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
