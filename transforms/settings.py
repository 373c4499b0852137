"""Settings: the fields of dataclasses of which the command line makes its flags."""

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
