"""A CPU that is treated as a GPU is, so that the GPU's form of the computations runs where there is none."""

from transforms.losses.devices import Device


class _AsGpu(Device):
    on_gpu = True


AS_GPU = _AsGpu("CPU:0")
