"""The marks of a check: its rule, where that comes from, and whether an engine needs it.

Easy to get wrong: `needed` is not "desirable".  It is what breaks an engine, an image, a container
or the machine when it does not hold; anything else is a `choice`.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, TypeVar

import pytest

Check = TypeVar("Check", bound=Callable[..., Any])

NEEDED, CHOICE = "needed", "choice"

ENGINE_CLIENT = "engine, pkg/plugins"
ENGINE_PROXY = "engine, daemon/graphdriver/proxy.go"
ENGINE_DRIVER = "engine, daemon/graphdriver/driver.go"
ENGINE_LAYERS = "engine, layer"
ENGINE_UNTAR = "engine, pkg/archive"
ENGINE_BUILDER = "engine, builder"
GRAPHTEST = "engine, daemon/graphdriver/graphtest"
OVERLAY2 = "engine, daemon/graphdriver/overlay2"
IMAGES = "OCI image specification, layer.md"
TAR = "POSIX pax, and GNU tar's manual"
SAFETY = "a layer that is acknowledged is whole"
CONFINEMENT = "an image is not to be trusted"


class Rule(NamedTuple):
    """A rule, its origin, and its weight: `NEEDED` or `CHOICE`."""

    text: str
    source: str
    weight: str


def needed(text: str, source: str) -> Callable[[Check], Check]:
    """Mark a check of what an engine relies on."""
    return _mark(text, source, NEEDED)


def choice(text: str, source: str) -> Callable[[Check], Check]:
    """Mark a check of what a driver may do otherwise."""
    return _mark(text, source, CHOICE)


def rule_of(item: pytest.Item) -> Rule:
    """The rule of a collected check."""
    mark = item.get_closest_marker("rule")
    if mark is None:
        raise pytest.UsageError(f"{item.nodeid}: a check needs @needed or @choice")
    weight = NEEDED if item.get_closest_marker(NEEDED) else CHOICE
    return Rule(mark.args[0], mark.args[1], weight)


def _mark(text: str, source: str, weight: str) -> Callable[[Check], Check]:
    def mark(check: Check) -> Check:
        marked: Check = pytest.mark.rule(text, source)(getattr(pytest.mark, weight)(check))
        return marked

    return mark
