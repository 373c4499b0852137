"""The devices of a worker and how they are used: the one place that knows about GPUs.

TensorFlow, which takes seconds to import, is imported where a GPU may be, or once something runs on it.

On a GPU, memory grows as it is needed, so that several processes can share the card; float32 is not computed as
TensorFloat-32 unless it is asked for; TensorFlow takes the same algorithms in every run; every loss runs as TensorFlow,
because the fused kernels are for CPUs; XLA compiles a descent; batches have a power of two of pairs, and their size
follows the memory (`scoring.batch.batching_for`). A process with several GPUs holds the networks on each.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from transforms.worker.stopwatch import lap
from transforms.worker.tensorflow_import import import_tensorflow

_turn = count()

# Set to 1 where a worker without a GPU is a mistake, for runners that take no --accelerator.
REQUIRE_GPU = "PAIRLOSS_REQUIRE_GPU"

# TensorFlow reaches the GPUs of NVIDIA and of AMD through these.
_DRIVER_LIBRARIES = ("libcuda.so.1", "libamdhip64.so")
# A driver writes its version there.
_DRIVER = Path("/proc/driver/nvidia/version")
# TensorFlow 2.21 holds machine code up to compute capability 8.9 and PTX of 9.0, which drivers from 555 on compile.
_MACHINE_CODE, _PTX, _PTX_DRIVER = (8, 9), (9, 0), 555
# TensorFlow counts the elements of a tensor in 32 bits where it launches a kernel; the largest tensors of VGG16 and
# AlexNet have 64 channels for each pixel, of both images of a pair.
MOST_PIXELS_ON_GPU = 2**31 // (2 * 64) - 1


class DeviceError(Exception):
    """A GPU is missing that was asked for, or there is one that TensorFlow cannot use."""


@dataclass(frozen=True)
class Device:
    """One device of this process.

    Attributes:
        name: TensorFlow's, such as `GPU:0`.
        memory_bytes: how much of a GPU's memory TensorFlow may take; 0 for a CPU.
        compute_capability: NVIDIA's version of the GPU's features; (0, 0) for a CPU.
        kind: such as `NVIDIA L4`; `CPU`.
    """

    name: str
    memory_bytes: int = 0
    compute_capability: tuple[int, int] = (0, 0)
    kind: str = "CPU"

    @property
    def on_gpu(self) -> bool:
        """True for a GPU."""
        return self.name.startswith("GPU")

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which TensorFlow places tensors and operations on this device."""
        import tensorflow as tf

        scope: AbstractContextManager[Any] = tf.device(self.name)
        return scope

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A context that one thread at a time enters on a GPU, so that it holds one batch; on a CPU, every thread."""
        if not self.on_gpu:
            yield
            return
        lock = _lock(self.name)
        with lap("queueing"):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def batch(self, pairs: int) -> int:
        """The size of the batch that this number of pairs is computed in: on a GPU the next power of two.

        A GPU's libraries choose or compile their algorithms anew for every shape of a batch.
        """
        return 1 << (pairs - 1).bit_length() if self.on_gpu else pairs

    def precision(self, precision: str, gradients: bool) -> str:
        """The networks' precision on this device: `auto` becomes one that the hardware multiplies fast; others stay.

        If two are fast, the finer one is taken: float16 has 3 bits more than bfloat16, and the features of VGG16 stay
        far below its largest value. Gradients, however, fall below its smallest.

        Args:
            precision: of `PRECISIONS`; `tensorfloat32` is float32 on hardware without it.
            gradients: whether gradients are wanted, too.
        """
        if precision == "tensorfloat32" and not (self.on_gpu and self.compute_capability >= (8, 0)):
            return "float32"
        if precision != "auto":
            return precision
        if not self.on_gpu:
            return "bfloat16" if {"amx_bf16", "avx512_bf16"} & _cpu_flags() else "float32"
        if self.compute_capability >= (7, 0) and not gradients:
            return "float16"
        return "bfloat16" if self.compute_capability >= (8, 0) else "float32"


CPU = Device("CPU:0")


@cache
def find_devices() -> tuple[Device, ...]:
    """The GPUs that this process sees, ready for use; without any, its CPU."""
    if not _may_have_gpu():
        return (CPU,)
    import_tensorflow()
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # It is too late if this process has used TensorFlow before, in a notebook for example.
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        # It also ends the choice of convolutions by timing them, which takes seconds for every shape.
        tf.config.experimental.enable_op_determinism()
    names = [_short(device.name) for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    if not gpus:
        return tuple(map(Device, names))
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    kinds = [(found.get("device_name", "GPU"), found.get("compute_capability", (0, 0))) for found in details]
    for kind, capability in kinds:
        _check_card(kind, capability)
    # No other function of TensorFlow says how much memory a GPU has. Without the option it would take all of it.
    growing = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
    memory = {_short(device.name): device.memory_limit for device in device_lib.list_local_devices(growing)}
    return tuple(
        Device(name, memory[name], capability, kind) for name, (kind, capability) in zip(names, kinds, strict=True)
    )


def _may_have_gpu() -> bool:
    """True if TensorFlow is there already or could find a driver, so that it must be asked; macOS needs no driver."""
    return "tensorflow" in sys.modules or sys.platform != "linux" or any(map(_can_load, _DRIVER_LIBRARIES))


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def next_device(needs_gpu: bool = False) -> Device:
    """Return the devices of this process in turn, so that the threads of a worker spread over them.

    Args:
        needs_gpu: whether a CPU will not do; the environment variable `REQUIRE_GPU` may also say so.

    Raises:
        DeviceError: there is no GPU although one is needed, or TensorFlow cannot use it.
    """
    devices = find_devices()
    if (needs_gpu or os.environ.get(REQUIRE_GPU) == "1") and not devices[0].on_gpu:
        raise DeviceError(f"This worker was to have a GPU, but TensorFlow finds none: {_why_no_gpu()}.")
    return devices[next(_turn) % len(devices)]


def _why_no_gpu() -> str:
    import_tensorflow()
    import tensorflow as tf

    build = tf.sysconfig.get_build_info()
    if not build["is_cuda_build"]:
        return "this build of TensorFlow has no CUDA; install tensorflow[and-cuda]"
    if _driver() is None:
        return "no NVIDIA driver is loaded; on Dataflow give install-nvidia-driver:5xx in --accelerator"
    return (
        f"NVIDIA's driver is {_driver()}, TensorFlow {tf.__version__} is built for CUDA {build['cuda_version']} and "
        f"cuDNN {build['cudnn_version']}, which need driver 525 or newer, and the libraries in this environment"
    )


def _check_card(kind: str, capability: tuple[int, int]) -> None:
    """Raise `DeviceError` for a card on which this TensorFlow would abort, or compile for half an hour and fail."""
    import tensorflow as tf

    if capability > _PTX:
        raise DeviceError(
            f"TensorFlow {tf.__version__} cannot compute on {kind}, of compute capability {capability}: it knows GPUs "
            f"up to {_PTX}. Take workers with H100, A100, L4 or T4, or a newer TensorFlow."
        )
    driver = _driver()
    if capability > _MACHINE_CODE and driver is not None and driver < _PTX_DRIVER:
        raise DeviceError(f"{kind} needs NVIDIA's driver {_PTX_DRIVER} or newer; the one here is {driver}.")


def _driver() -> int | None:
    """The major version of NVIDIA's driver; None: there is none."""
    if not _DRIVER.exists():
        return None
    found = re.search(r"(\d+)\.\d+", _DRIVER.read_text(encoding="utf-8"))
    return int(found[1]) if found else None


@cache
def _lock(_: str) -> Lock:
    """The lock of a device, by its name."""
    return Lock()


def _short(name: str) -> str:
    return name.rpartition("/device:")[2]


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
