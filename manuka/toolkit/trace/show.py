"""Calls for people: a line for each as it ends, and a table of all.

Easy to get wrong: an error is what the reader looks for, so it is on the call's own line.
"""

from __future__ import annotations

import math
import re
from typing import Dict, Iterable, List, Optional, Sequence

from manuka.toolkit.trace.call import Call

_LONG_ID = re.compile(r"[0-9a-f]{64}")


def short(layer_id: Optional[str]) -> str:
    """A layer's id as people can tell it: twelve digits, and the engine's own suffix."""
    if layer_id is None:
        return "-"
    name, dash, suffix = layer_id.partition("-")
    return name[:12] + dash + suffix if len(name) == 64 else layer_id[:18]


def size(count: int) -> str:
    """Bytes, in the unit that fits."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} GB"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def line(call: Call, origin: float) -> str:
    """One call; `origin` is the time from which it counts."""
    name = call.name.replace("GraphDriver.", "")
    text = f"{call.began - origin:+9.3f}s  {name:<16} {short(call.layer_id):<18}"
    return f"{text} {milliseconds(call.took):>10}  {_rest(call)}".rstrip()


def _rest(call: Call) -> str:
    parts = []
    if call.parent:
        parts.append(f"on {short(call.parent)}")
    if call.name == "GraphDriver.Init":
        parts.append("home {}".format((call.request or {}).get("Home")))
    if call.name == "GraphDriver.ApplyDiff":
        parts.append(f"{size(call.received)} in")
    if call.name == "GraphDriver.Diff":
        parts.append(f"{size(call.sent)} out")
    if call.error is not None:
        parts.append(f"ERROR {call.error}")
    else:
        parts.append(_answer(call.reply or {}))
    return ", ".join(part for part in parts if part)


def _answer(reply: Dict[str, object]) -> str:
    """What a reply says, without what every reply has."""
    if reply.get("Dir"):
        return "-> " + _LONG_ID.sub(lambda found: found.group()[:12], str(reply["Dir"]))
    if "Exists" in reply:
        return f"-> {'yes' if reply['Exists'] else 'no'}"
    if "Size" in reply:
        return f"-> {size(int(str(reply['Size'])))}"
    changes = reply.get("Changes")
    if isinstance(changes, list):
        return f"-> {len(changes)} changes"
    return ""


def table(calls: Iterable[Call]) -> List[str]:
    """For each kind of call: how many, p50, p99, longest, bytes, errors; the dearest first."""
    groups: Dict[str, List[Call]] = {}
    for call in calls:
        groups.setdefault(call.name, []).append(call)
    rows = [("call", "count", "p50", "p99", "longest", "all", "bytes", "errors")]
    by_time = sorted(groups.items(), key=lambda group: -sum(call.took for call in group[1]))
    for name, group in by_time:
        times = sorted(call.took for call in group)
        rows.append(
            (
                name.replace("GraphDriver.", ""),
                str(len(group)),
                milliseconds(percentile(times, 50)),
                milliseconds(percentile(times, 99)),
                milliseconds(times[-1]),
                milliseconds(sum(times)),
                size(sum(_moved(call) for call in group)),
                str(sum(call.error is not None for call in group) or ""),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _moved(call: Call) -> int:
    """Bytes of layers; messages do not count."""
    if call.name == "GraphDriver.ApplyDiff":
        return call.received
    return call.sent if call.name == "GraphDriver.Diff" else 0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that is not below `percent` of them (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
