"""The guide: its commands are typed, its recordings made again, its links followed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.guide.console import Reader
from tests.guide.markdown import GUIDE, ROOT, anchors, blocks, chapters
from tests.guide.recording import drawing, record, render, sequence, stable
from tests.processes import commands_with

CHAPTERS = [path for path in chapters() if any(block.kind == "run" for block in blocks(path))]


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names(CHAPTERS))
def test_the_commands_of_a_chapter_print_what_it_says(
    chapter: Path, tmp_path: Path, first_engine: str, workshop: str
) -> None:
    assert Reader(chapter, tmp_path, first_engine, workshop).read()


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ("sleep 3600", subprocess.TimeoutExpired),
        ("false", AssertionError),
        ("true", AssertionError),  # all is as it is said, but for what stays
    ],
)
def test_a_chapter_leaves_nothing_running_however_it_ends(
    tmp_path: Path, last: str, error: type[Exception]
) -> None:
    chapter = tmp_path / "chapter.md"
    started = "tail -F $PWD/nothing >log 2>&1 &"
    chapter.write_text(f"<!-- run: here -->\n```console\n$ {started}\n$ {last}\n```\n")
    with pytest.raises(error):
        Reader(chapter, tmp_path, "dockerd", "", patience=2).read()
    assert (tmp_path / "log").exists()
    assert commands_with(f"{tmp_path}/nothing") == []


def test_the_recordings_are_what_an_engine_says(first_engine: str, workshop: str) -> None:
    recording = record(first_engine, workshop)
    made = render(recording)
    shown = [block for path in chapters() for block in blocks(path) if block.kind == "recorded"]
    assert len(shown) > 15
    for block in shown:
        assert stable(made[block.name]) == stable(block.text), block.name
    assert stable(drawing(recording)) == stable((GUIDE / "run.svg").read_text(encoding="utf-8"))


def test_every_engine_makes_the_calls_of_the_guide_in_its_order(engine: str, workshop: str) -> None:
    shown = next(block for block in blocks(GUIDE / "1-run.md") if block.name == "sequence")
    assert sequence(record(engine, workshop)) == shown.text


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_name_that_the_guide_gives_for_a_file_is_in_it() -> None:
    linked = re.compile(r"\]\(\.\./\.\./(manuka/[\w/]+\.py)\): `(\w+)`")
    found = [pair for path in chapters() for pair in linked.findall(path.read_text("utf-8"))]
    assert found
    for file, name in found:
        assert re.search(rf"^\s*(class|def) {name}\b|^{name} =", (ROOT / file).read_text(), re.M), (
            name
        )
