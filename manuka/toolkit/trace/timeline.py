"""Calls as bars over time: one row a call, as text or as SVG.

Easy to get wrong: a call may be a thousand times shorter than the whole; a bar is never narrower
than can be seen.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple
from xml.sax.saxutils import escape

from manuka.toolkit.trace.call import Call
from manuka.toolkit.trace.show import milliseconds, short

_COLOURS = {
    "Create": "#4c78a8", "CreateReadWrite": "#4c78a8", "Remove": "#9c755f", "Get": "#54a24b",
    "Put": "#88d27a", "ApplyDiff": "#f58518", "Diff": "#eeca3b", "Changes": "#b279a2",
    "DiffSize": "#b279a2",
}  # fmt: skip
_OTHER, _ERROR = "#bab0ac", "#e45756"
_ROW, _LEFT, _RIGHT, _TOP = 18, 330, 90, 34


def text(calls: Sequence[Call], width: int = 60) -> List[str]:
    """A line for each call, in the order of their beginnings; `width` is that of the bars."""
    ordered, origin, span = _frame(calls)
    lines = []
    for call in ordered:
        begin = min(int((call.began - origin) / span * width), width - 1)
        length = max(1, round(call.took / span * width))
        bar = " " * begin + "█" * min(length, width - begin)
        mark = "!" if call.error else " "
        lines.append(
            f"{_name(call):<16} {short(call.layer_id):<18} {bar:<{width}} "
            f"{mark}{milliseconds(call.took)}"
        )
    lines.append(f"{'':35} {'0':<{width - 8}}{milliseconds(span):>8}")
    return lines


def svg(calls: Sequence[Call], title: str, width: int = 900) -> str:
    """A drawing, complete in itself.  Each layer's id is beside its bar; errors are red."""
    ordered, origin, span = _frame(calls)
    room = width - _LEFT - _RIGHT
    height = _TOP + _ROW * len(ordered) + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14">{escape(title)}</text>',
    ]
    for tick in range(5):
        x = _LEFT + room * tick / 4
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height - 22}" stroke="#dddddd"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle" fill="#666666">'
            f"{milliseconds(span * tick / 4)}</text>"
        )
    for row, call in enumerate(ordered):
        y = _TOP + row * _ROW
        x = _LEFT + (call.began - origin) / span * room
        length = max(1.5, call.took / span * room)
        colour = _ERROR if call.error else _COLOURS.get(_name(call), _OTHER)
        parts.append(
            f'<text x="8" y="{y + 12}">{escape(_name(call))}</text>'
            f'<text x="120" y="{y + 12}" font-family="monospace" fill="#444444">'
            f"{escape(short(call.layer_id))}</text>"
            f'<rect x="{x:.1f}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" '
            f'fill="{colour}"><title>{escape(call.error or call.name)}</title></rect>'
            f'<text x="{x + length + 4:.1f}" y="{y + 12}" fill="#666666">'
            f"{milliseconds(call.took)}</text>"
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _frame(calls: Sequence[Call]) -> Tuple[List[Call], float, float]:
    """The calls in order, when the first began, and the seconds until the last has ended."""
    ordered = sorted(calls, key=lambda call: call.began)
    origin = ordered[0].began
    span = max(call.began + call.took for call in ordered) - origin
    return ordered, origin, max(span, 1e-6)


def _name(call: Call) -> str:
    return call.name.replace("GraphDriver.", "")
