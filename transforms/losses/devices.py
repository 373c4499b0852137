"""The devices of a worker and how they are used: the one place that knows about GPUs.

On a GPU, memory grows as it is needed, so that several processes can share the card; float32 is not computed as
TensorFloat-32; every loss runs as TensorFlow, because the fused kernels are for CPUs; XLA compiles a descent; and the
size of the batch follows the memory (`scoring.batch.batching_for`). A process with several GPUs holds the networks on
each.
"""

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.client import device_lib

_turn = count()


@dataclass(frozen=True)
class Device:
    """One device of this process.

    Attributes:
        name: TensorFlow's, such as `GPU:0`.
        memory_bytes: how much of a GPU's memory TensorFlow may take; 0 for a CPU.
        compute_capability: NVIDIA's version of the GPU's features; (0, 0) for a CPU.
    """

    name: str
    memory_bytes: int = 0
    compute_capability: tuple[int, int] = (0, 0)

    @property
    def on_gpu(self) -> bool:
        """True for a GPU."""
        return self.name.startswith("GPU")

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which TensorFlow places tensors and operations on this device."""
        scope: AbstractContextManager[Any] = tf.device(self.name)
        return scope

    def precision(self, precision: str, gradients: bool) -> str:
        """The networks' precision on this device: `auto` becomes one that the hardware multiplies fast; others stay.

        If two are fast, the finer one is taken: float16 has 3 bits more than bfloat16, and the features of VGG16 stay
        far below its largest value. Gradients, however, fall below its smallest.

        Args:
            precision: `float32`, `bfloat16`, `float16` or `auto`.
            gradients: whether gradients are wanted, too.
        """
        if precision != "auto":
            return precision
        if not self.on_gpu:
            return "bfloat16" if {"amx_bf16", "avx512_bf16"} & _cpu_flags() else "float32"
        if self.compute_capability >= (7, 0) and not gradients:
            return "float16"
        return "bfloat16" if self.compute_capability >= (8, 0) else "float32"


@cache
def find_devices() -> tuple[Device, ...]:
    """The GPUs that this process sees, ready for use; without any, its CPU."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # It is too late if this process has used TensorFlow before, in a notebook for example.
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    names = [_short(device.name) for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    if not gpus:
        return tuple(map(Device, names))
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    # No other function of TensorFlow says how much memory a GPU has. Without the option it would take all of it.
    growing = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
    memory = {_short(device.name): device.memory_limit for device in device_lib.list_local_devices(growing)}
    return tuple(Device(name, memory[name], capability) for name in names)


def next_device() -> Device:
    """Return the devices of this process in turn, so that the threads of a worker spread over them."""
    devices = find_devices()
    return devices[next(_turn) % len(devices)]


def _short(name: str) -> str:
    return name.rpartition("/device:")[2]


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
