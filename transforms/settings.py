"""Settings: fields of dataclasses that become flags of the command line."""

import dataclasses
from typing import Any


def setting(help: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass field that is a flag of the command line.

    Args:
        help: what the flag does.
        default: the field's default; without one, the flag is required.
        metadata: see `pipeline.flags`.
    """
    return dataclasses.field(default=default, metadata={"help": help, **metadata})
