"""Functions compiled by numba ahead of their first call, and kept on disk between processes where that is possible."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(signature: numba.core.typing.Signature, **options: Any) -> Callable[[Callable], Callable]:
    """Compile a function for one signature as it is defined; the next process loads what this one compiled.

    numba keeps the code beside the source file, or else in the user's cache directory; NUMBA_CACHE_DIR names another.
    Where it can keep nothing, such as in a read-only container or on a full disk, every process compiles.

    Args:
        signature: the types of the result and of the arguments.
        options: of `numba.njit`.
    """

    def compile(function: Callable) -> Callable:
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except Exception:
            # A cache that cannot be made, written or read raises errors of any type; an error of the code comes again.
            return numba.njit(signature, **options)(function)

    return compile
