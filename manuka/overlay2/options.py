"""The driver's options, from the engine's ``--storage-opt KEY=VALUE``.

=========================  =============================================================
``size=10G``               limit for each container's layer; wants xfs with pquota
``override_kernel_check``  a truth value; accepted and ignored, as in the engine up to 23
``sync=filesystem``        a layer is on the disk before it is acknowledged; else: ``none``
``diff=naive``             always compare mounted trees; else: ``auto``
=========================  =============================================================

The first two are Moby's and stand behind ``overlay2.`` or ``manuka.``; the others only behind
``manuka.``.  Source: ``parseOptions`` in the engine's ``daemon/graphdriver/overlay2/overlay.go``.
"""

from __future__ import annotations

import re
from typing import Mapping, NamedTuple, Sequence

from manuka.driver import DriverError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgtp])?i?b?)", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUTH = {"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"}


class Options(NamedTuple):
    """What was asked for.

    size: bytes that a container may write; 0: no limit.
    sync: whether ApplyDiff ends by writing the file system out to the disk.
    naive: whether to make every diff by comparing mounted trees.
    """

    size: int = 0
    sync: bool = False
    naive: bool = False


def parse_options(options: Sequence[str]) -> Options:
    """Read the engine's list.  Raises DriverError for what is unknown or malformed."""
    result = Options()
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise DriverError(f"storage option {option!r}: it has to be KEY=VALUE")
        driver, _, name = key.strip().lower().partition(".")
        value = value.strip()
        if driver not in ("overlay2", "manuka") or name not in _known(driver):
            known = ", ".join(f"manuka.{name}" for name in sorted(_known("manuka")))
            raise DriverError(f"overlay2: unknown option {key}; there are: {known}")
        if name == "size":
            result = result._replace(size=parse_size(value, key))
        elif name == "sync":
            result = result._replace(sync=_choice(key, value, "none", "filesystem") == 1)
        elif name == "diff":
            result = result._replace(naive=_choice(key, value, "auto", "naive") == 1)
        elif value not in _TRUTH:
            raise DriverError(f"storage option {key}: {value!r} is neither true nor false")
    return result


def layer_size(storage_opt: Mapping[str, str], default: int) -> int:
    """The limit for one new layer in bytes, 0 for none.  Raises DriverError as above."""
    for key in storage_opt:
        if key.lower() != "size":
            raise DriverError(f"unknown storage option {key!r} for a layer; there is only 'size'")
    for key, value in storage_opt.items():
        return parse_size(value, key)
    return default


def parse_size(text: str, key: str) -> int:
    """Bytes for a number with an optional unit, 1k being 1024 (``docker/go-units``)."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise DriverError(f"storage option {key}: {text!r} is no size such as 10G or 512m")
    return int(float(match.group(1)) * 1024 ** _UNITS[(match.group(2) or "").lower()])


def _known(driver: str) -> set[str]:
    moby = {"size", "override_kernel_check"}
    return moby | {"sync", "diff"} if driver == "manuka" else moby


def _choice(key: str, value: str, *choices: str) -> int:
    if value not in choices:
        raise DriverError(f"storage option {key}: {value!r} is not one of: {', '.join(choices)}")
    return choices.index(value)
