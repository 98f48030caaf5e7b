"""The ratios to native as a picture: an SVG of bars, for the README.

It brings its own background, and colours for a light and a dark page (GitHub shows it as an image,
which knows only the reader's general wish).  Neighbours: `results` has the figures.  Easy to get
wrong: text in an SVG is not laid out; what is long has to be given room.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from manuka.toolkit.bench.results import Results
from manuka.toolkit.bench.rows import GO, MANUKA, NATIVE

_LABELS, _PLOT, _ROW, _BAR, _TOP = 330, 400, 34, 11, 62
_MOST = 1.6

_STYLE = """\
.card{fill:#fff;stroke:#d0d7de}.text{fill:#1f2328;font:13px system-ui,sans-serif}
.small{fill:#59636e;font:11px system-ui,sans-serif}
.title{fill:#1f2328;font:600 15px system-ui,sans-serif}
.manuka{fill:#2f7d4f}.go{fill:#a8b1ba}
.line{stroke:#59636e;stroke-width:1.5}.bar{stroke:#d1242f;stroke-width:2}
@media (prefers-color-scheme:dark){.card{fill:#0d1117;stroke:#3d444d}.text,.title{fill:#f0f6fc}
.small{fill:#9198a1}.manuka{fill:#3fb950}.go{fill:#656c76}.line{stroke:#9198a1}.bar{stroke:#f85149}}"""


def svg(results: Results) -> str:
    """The picture: a row for each figure that native has too, the shorter the better."""
    rows = [row for row in results.rows if results.ratio(row, MANUKA) and not row.more_is_better]
    with_go = any(results.ratio(row, GO) for row in rows)
    width, height = _LABELS + _PLOT + 70, _TOP + _ROW * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="Time against native overlay2">',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        '<text class="title" x="16" y="26">Time against the engine\'s own overlay2</text>',
        f'<text class="small" x="16" y="44">{escape(_subtitle(results))}</text>',
    ]
    for number, row in enumerate(rows):
        top = _TOP + _ROW * number
        parts.append(
            f'<text class="text" x="{_LABELS - 10}" y="{top + 17}" text-anchor="end">'
            f"{escape(row.title)}</text>"
        )
        thin = _BAR if with_go else 2 * _BAR - 4
        for place, name in enumerate((MANUKA, GO)):
            ratio = results.ratio(row, name)
            if ratio is not None:
                parts.append(_bar(name, ratio, top + 2 + place * (_BAR + 1), thin))
                if name == MANUKA:
                    parts.append(
                        f'<text class="text" x="{width - 16}" y="{top + 17}" text-anchor="end">'
                        f"{ratio:.2f}</text>"
                    )
        if row.ratio_bar is not None:
            x = _x(row.ratio_bar)
            parts.append(
                f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + _ROW - 8}"/>'
            )
    bottom = height - 30
    one = _x(1)
    parts += [
        f'<line class="line" x1="{one}" x2="{one}" y1="{_TOP - 8}" y2="{bottom}"/>',
        f'<text class="small" x="{one}" y="{bottom + 14}" text-anchor="middle">{NATIVE} = 1</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(name: str, ratio: float, y: float, thick: int) -> str:
    long = max(_x(min(ratio, _MOST)) - _LABELS, 1)
    return (
        f'<rect class="{name}" x="{_LABELS}" y="{y}" width="{long:.1f}" height="{thick}" rx="2"/>'
    )


def _x(ratio: float) -> float:
    return round(_LABELS + _PLOT * ratio / _MOST, 1)


def _subtitle(results: Results) -> str:
    facts = [results.facts[name] for name in ("engine", "kernel") if name in results.facts]
    if results.warning is not None:
        facts.insert(0, results.warning)
    return "shorter is better; green: manuka, grey: a plugin in Go; red: the bar. " + ", ".join(
        facts
    )
