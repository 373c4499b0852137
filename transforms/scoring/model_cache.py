"""What a worker process holds: one set of networks per device, for all its threads and for the next run in it."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from apache_beam.utils.shared import Shared

from transforms.losses.plan import Plan
from transforms.worker.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from transforms.losses.devices import Device

T = TypeVar("T")

# By what is held and by device. A Shared keeps its last object alive: networks are large, and tracing takes seconds.
_held: defaultdict[tuple[str, str], Shared] = defaultdict(Shared)
_lock = Lock()


def hold(load: "Callable[[Plan, Device], T]", plan: Plan) -> T:
    """What `load` makes of the plan on a device, loaded once; callers get the devices of this process in turn."""
    import_tensorflow()
    from transforms.losses.devices import next_device

    device = next_device()
    with _lock:
        shared = _held[load.__qualname__, device.name]
    held: T = shared.acquire(partial(load, plan, device), tag=repr(plan))
    return held
