"""The models a worker process has loaded: one set per device, shared by all its threads and by later runs in it."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from apache_beam.utils.shared import Shared

from transforms.losses.plan import Plan
from transforms.worker.garbage import made_to_stay

if TYPE_CHECKING:
    from transforms.losses.devices import Device

T = TypeVar("T")

# By loading function and device. A Shared keeps its last object alive: networks are large, and tracing takes seconds.
_loaded: defaultdict[tuple[str, str], Shared] = defaultdict(Shared)
_lock = Lock()


def load_once(load: "Callable[[Plan, Device], T]", plan: Plan, device: "Device | None" = None) -> T:
    """Load the plan's model on a device unless it is loaded already.

    Args:
        load: makes the model.
        plan: what the model computes.
        device: holds the model; None: each call gets the next of this process.

    Raises:
        DeviceError: TensorFlow cannot use the GPU that is here, or one is needed and missing.
    """
    from transforms.losses.devices import next_device

    device = device or next_device()
    with _lock:
        shared = _loaded[load.__qualname__, device.name]
    with made_to_stay():
        model: T = shared.acquire(partial(load, plan, device), tag=repr(plan))
    return model
