"""Types what the guide's console blocks say, and compares what comes.

A line that begins with ``$ `` is a command, of as many lines as end in a backslash; those below it
are what it prints, on either stream.  ``…`` stands for anything within a line, and alone on a line
for any lines, or none.  All blocks of a chapter share a folder, so one can use what another made.

What a chapter started in the background ends with it, however it ends; one that leaves something
running has failed, for its reader would be left with it.

Easy to get wrong: a command that fails.  It has to print what the guide says, and end well unless
the line behind it shows an error, as ``(exit status 1)``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

from manuka.toolkit import busybox
from manuka.toolkit.namespace import with_this_package
from manuka.toolkit.sandbox import Sandbox
from tests.guide.markdown import Block, blocks
from tests.processes import Marked

_STATUS = re.compile(r"\(exit status (\d+)\)")


class Command(NamedTuple):
    """A command, the lines that it is said to print, and its exit status."""

    text: str
    output: list[str]
    status: int


def commands(text: str) -> Iterator[Command]:
    """The commands of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.rstrip("\n").split("\n")
        command = [lines.pop(0)]
        while command[-1].endswith("\\"):
            command.append(lines.pop(0))
        status = 0
        if lines and _STATUS.fullmatch(lines[-1]):
            status = int(_STATUS.fullmatch(lines.pop())[1])  # type: ignore[index]
        yield Command("\n".join(command), lines, status)


def is_as_said(said: list[str], printed: list[str]) -> bool:
    """Whether the lines of a command are those that the guide shows."""
    pattern = []
    for line in said:
        if line.strip() == "…":
            pattern.append(r"(?:[^\n]*\n)*?")
        else:
            parts = map(re.escape, re.split("…", re.sub(r"\s+", " ", line.strip())))
            pattern.append("[^\n]*?".join(parts) + "\n")
    text = "".join(re.sub(r"\s+", " ", line.strip()) + "\n" for line in printed)
    return re.fullmatch("".join(pattern), text) is not None


class Reader:
    """Reads a chapter as its reader would: makes its files, types its commands."""

    def __init__(
        self, chapter: Path, folder: Path, engine: str, data_dir: str, patience: float = 240
    ) -> None:
        """`patience`: how long a command may take, in seconds."""
        self._chapter = chapter
        self._folder = folder
        self._engine = engine
        self._data_dir = data_dir
        self._patience = patience
        self._started_here = Marked()
        self._sandbox: Sandbox | None = None
        self._stack = contextlib.ExitStack()

    def read(self) -> int:
        """Do all blocks in order; how many commands there were.  AssertionError if one differs."""
        count = 0
        here = os.getcwd()
        os.chdir(self._folder)
        try:
            with self._stack:
                for block in blocks(self._chapter):
                    count += self._do(block)
            assert self._started_here.gone(self._patience), "the chapter leaves processes behind"
        finally:
            os.chdir(here)
            self._started_here.end()
        return count

    def _do(self, block: Block) -> int:
        if block.kind == "file":
            name, _, more = block.name.partition(" ")
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a" if more else "w", encoding="utf-8") as file:
                file.write(block.text)
        if block.kind != "run":
            return 0
        found = list(commands(block.text))
        assert found, f"a block without a command:\n{block.text}"
        for command in found:
            self._type(command, block.name == "sandbox")
        return len(found)

    def _type(self, command: Command, in_sandbox: bool) -> None:
        child = self._spawn(["bash", "-c", command.text], in_sandbox)
        try:
            out = child.communicate(timeout=self._patience)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            self._started_here.end()
            child.communicate()
            raise
        problem = f"\n$ {command.text}\n{out}\n--- the guide says:\n" + "\n".join(command.output)
        assert child.returncode == command.status, f"status {child.returncode}:{problem}"
        assert is_as_said(command.output, out.splitlines()), problem

    def _spawn(self, words: list[str], in_sandbox: bool) -> subprocess.Popen[bytes]:
        if in_sandbox:
            sandbox = self._started()
            env = self._environment(sandbox.environment())
            return sandbox.spawn(
                words,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        return subprocess.Popen(
            words,
            env=self._environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _started(self) -> Sandbox:
        if self._sandbox is None:
            made = Sandbox(self._engine, data_dir=self._data_dir)
            self._sandbox = self._stack.enter_context(made)
            made.docker("import", "-", "busybox", input=busybox.image(busybox.find()))
        return self._sandbox

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        """Where ``manuka`` is a command, and its engine the one under test."""
        tools = self._folder / ".tools"
        tools.mkdir(exist_ok=True)
        for name, words in (
            ("manuka", [sys.executable, "-m", "manuka"]),
            ("python", [sys.executable]),
        ):
            script = tools / name
            script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            script.chmod(0o755)
        programs = os.path.dirname(os.path.abspath(self._engine))
        env = self._started_here.environment(with_this_package(env))
        env["PATH"] = f"{tools}:{programs}:{env['PATH']}"
        env["NO_COLOR"] = "1"
        env["COLUMNS"] = "100"
        return env
