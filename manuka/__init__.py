"""Manuka: Docker's overlay2 storage driver as a plugin, and a kit for writing others.

What an author of a driver needs is exported here::

    from manuka import CreateOptions, DriverError, GraphDriver, Settings

So is what its types need, and a driver that overrides more than the five methods: `LayerId`,
`Change` and `Kind`, `IdMaps` and `IdRange`, `Stream`.

The names load when they are first used: ``import manuka`` alone costs nothing, which matters to
every short command that starts with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manuka.driver import (
        Change,
        CreateOptions,
        DriverError,
        GraphDriver,
        IdMaps,
        IdRange,
        Kind,
        LayerId,
        Settings,
        Stream,
    )

__version__ = "0.1.0"
__all__ = [
    "Change",
    "CreateOptions",
    "DriverError",
    "GraphDriver",
    "IdMaps",
    "IdRange",
    "Kind",
    "LayerId",
    "Settings",
    "Stream",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import manuka.driver

    return getattr(manuka.driver, name)
