"""Functions compiled by numba and kept on disk between processes where that is possible."""

from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any

import numba


def compiled(
    signature: numba.core.typing.Signature | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function as it is defined, or when it is called; the next process loads what this one compiled.

    numba keeps the code beside the source file, or else in the user's cache directory; NUMBA_CACHE_DIR names another.
    Where it can keep nothing, such as in a read-only container or on a full disk, every process compiles. numba knows
    kept code by the function's file: a constant of another file should be an argument.

    Args:
        signature: the types of the result and of the arguments; None: those of the arguments in a call, each time new
            ones come. Then another compiled function cannot call it.
        options: of `numba.njit`.
    """

    def compile(function: Callable[..., Any], types: Any) -> Callable[..., Any]:
        try:
            return numba.njit(types, cache=True, **options)(function)
        except Exception:
            # A cache that cannot be made, written or read raises errors of any type; an error of the code comes again.
            return numba.njit(types, **options)(function)

    def by_signature(function: Callable[..., Any]) -> Callable[..., Any]:
        return compile(function, signature)

    def by_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
        versions: dict[tuple[Any, ...], Callable[..., Any]] = {}
        lock = Lock()

        @wraps(function)
        def call(*arguments: Any) -> Any:
            types = tuple(map(numba.typeof, arguments))
            if types not in versions:
                with lock:
                    versions[types] = versions.get(types) or compile(function, types)
            return versions[types](*arguments)

        return call

    return by_signature if signature else by_arguments
