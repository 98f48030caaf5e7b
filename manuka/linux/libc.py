"""The C library, loaded once, and the one way to call it.

Its neighbours in this package declare what they need with `function` and call it through `call`.
Easy to get wrong: C takes a string to end at its first NUL, so a path with a NUL inside would
name another file; `c_string` refuses it.  The interpreter lock is free during a call, and errno
is kept per thread, so all of this may run on many threads at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any, Callable, Sequence

_library = ctypes.CDLL(None, use_errno=True)


def function(
    name: str, argtypes: Sequence[Any] | None, restype: Any = ctypes.c_int
) -> Callable[..., Any]:
    """The C function `name`, as an object of its own.  argtypes None: they go unchecked."""
    found = _library[name]
    if argtypes is not None:
        found.argtypes = argtypes
    found.restype = restype
    return found


def has_function(name: str) -> bool:
    """Whether this C library has the function `name`."""
    return hasattr(_library, name)


def call(function: Callable[..., Any], *arguments: Any, path: str | None = None) -> int:
    """Call a function that answers -1 on failure; raises OSError with errno and `path`."""
    while True:
        result: int = function(*arguments)
        if result != -1:
            return result
        if ctypes.get_errno() != errno.EINTR:
            raise failure(path)


def failure(path: str | bytes | None = None) -> OSError:
    """The OSError for what the last call in this thread left in errno."""
    return os_error(ctypes.get_errno(), path)


def os_error(code: int, path: str | bytes | None = None) -> OSError:
    """An OSError (of the subclass that belongs to `code`) in the system's words."""
    return OSError(code, os.strerror(code), None if path is None else os.fsdecode(path))


def c_string(text: str) -> bytes:
    """`text` as the bytes of a C string; raises OSError (EINVAL) when it has a NUL inside."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, "there is a NUL byte in the name", text)
    return encoded
