"""The marks of a check: its rule, where that comes from, and whether an engine needs it.

`needed` is not "desirable": an engine, an image, a container or the machine is harmed when it does
not hold.  Anything else is a `choice`.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, TypeVar

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
RUNTIME = "runc, libcontainer/configs/validate"
IMAGES = "OCI image specification, layer.md"
TAR = "POSIX pax, and GNU tar's manual"
SAFETY = "a layer that is acknowledged is whole"
CONFINEMENT = "an image is not to be trusted"

_CALLS = "guide/2-calls.md#"

#: The groups in the order in which they run, what others rest on first; and where in ``docs/``
#: the guide says more about their rules, unless a rule has a section of its own.
GROUPS = {
    "handshake": _CALLS + "what-holds-for-every-call",
    "life": _CALLS + "create-and-createreadwrite",
    "content": _CALLS + "applydiff",
    "inheritance": _CALLS + "create-and-createreadwrite",
    "independence": _CALLS + "create-and-createreadwrite",
    "names": _CALLS + "applydiff",
    "whiteouts": "guide/3-overlay2.md#whiteouts-and-opaque-folders",
    "changes": _CALLS + "changes",
    "depth": "guide/3-overlay2.md#the-mount",
    "ids": _CALLS + "create-and-createreadwrite",
    "errors": _CALLS + "what-holds-for-every-call",
    "streams": _CALLS + "applydiff",
    "hostile": _CALLS + "applydiff",
    "connections": _CALLS + "what-holds-for-every-call",
    "concurrency": _CALLS + "what-holds-for-every-call",
    "restart": _CALLS + "get",
}

_PREFIX = "check_"


class Rule(NamedTuple):
    """What a check stands for.

    source: where the rule comes from.
    weight: `NEEDED` or `CHOICE`.
    guide: the section of the guide about it, below ``docs/``.
    anchor: the rule's own place in ``docs/``, in the list of all rules.
    """

    text: str
    source: str
    weight: str
    guide: str
    anchor: str


def needed(text: str, source: str, guide: Optional[str] = None) -> Callable[[Check], Check]:
    """Mark a check of what an engine relies on.

    guide: the section of the guide's chapter about calls that says more about the rule, such as
        ``get``; None: the group's (`GROUPS`).
    """
    return _mark(text, source, NEEDED, guide)


def choice(text: str, source: str, guide: Optional[str] = None) -> Callable[[Check], Check]:
    """Mark a check of what a driver may do otherwise."""
    return _mark(text, source, CHOICE, guide)


def group_of(item: pytest.Item) -> str:
    """The group of a check: its module's name without ``check_``."""
    return item.path.stem[len(_PREFIX) :]


def name_of(item: pytest.Item) -> str:
    """The check's name without ``check_``."""
    return item.name[len(_PREFIX) :]


def rule_of(item: pytest.Item) -> Rule:
    """The rule of a collected check."""
    mark = item.get_closest_marker("rule")
    if mark is None:
        raise pytest.UsageError(f"{item.nodeid}: a check needs @needed or @choice")
    text, source, guide = mark.args
    weight = NEEDED if item.get_closest_marker(NEEDED) else CHOICE
    group, name = group_of(item), name_of(item).partition("[")[0]
    anchor = f"conformance.md#{group}-{name.replace('_', '-')}"
    return Rule(text, source, weight, _CALLS + guide if guide else GROUPS[group], anchor)


def _mark(text: str, source: str, weight: str, guide: Optional[str]) -> Callable[[Check], Check]:
    def mark(check: Check) -> Check:
        rule = pytest.mark.rule(text, source, guide)
        marked: Check = rule(getattr(pytest.mark, weight)(check))
        return marked

    return mark
