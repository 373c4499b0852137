"""A CPU that the package takes for a GPU, so that tests run the code for GPUs on a machine without one."""

from transforms.losses.devices import Device


class _AsGpu(Device):
    on_gpu = True


AS_GPU = _AsGpu("CPU:0")
