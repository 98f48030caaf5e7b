"""The marked parts of the guide's chapters: what is generated, run, or written to a file.

A mark is a comment of HTML on the line above a fenced block::

    <!-- recorded: NAME -->     made by `tests.guide.recording`
    <!-- run: here -->          a console block; `tests.guide.console` types it
    <!-- run: sandbox -->       the same, where ``docker`` talks to an engine of the chapter's own
    <!-- file: PATH -->         the content of a file
    <!-- file: PATH + -->       more of it, at its end
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, NamedTuple

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"

_BLOCK = re.compile(
    r"^<!-- (?P<kind>recorded|run|file): (?P<name>.+?) -->\n```(?P<language>\w*)\n"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One marked block: ``recorded``, ``run`` or ``file``, and what is said of it."""

    kind: str
    name: str
    language: str
    text: str


def chapters() -> list[Path]:
    return sorted(GUIDE.glob("*.md"))


def blocks(chapter: Path) -> Iterator[Block]:
    """The marked blocks, in order."""
    for match in _BLOCK.finditer(chapter.read_text(encoding="utf-8")):
        yield Block(match["kind"], match["name"], match["language"], match["text"])


def replace_recorded(chapter: Path, name: str, text: str) -> None:
    """Put `text` into the block that is marked ``recorded: name``."""

    def put(match: re.Match[str]) -> str:
        if (match["kind"], match["name"]) != ("recorded", name):
            return match.group()
        return f"<!-- recorded: {name} -->\n```{match['language']}\n{text}```"

    chapter.write_text(_BLOCK.sub(put, chapter.read_text(encoding="utf-8")), encoding="utf-8")


def anchors(chapter: Path) -> set[str]:
    """What a link to one of its headings says behind the ``#``, as GitHub makes it."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```$", "", chapter.read_text(encoding="utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(plain)
    return found
