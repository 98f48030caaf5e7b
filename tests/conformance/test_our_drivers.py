"""What this package serves passes its own kit, with nothing that differs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from tests.conformance.runs import ROOT, conform, needs_root, roomy_folder
from tests.unit.drivers import Maker, btrfs, whole_trees
from tests.unit.wire import accepts

__all__ = ["btrfs", "whole_trees"]  # fixtures

pytestmark = needs_root


class Served(NamedTuple):
    """socket: of a ``manuka serve`` process.  restart, kill: shell commands for it."""

    socket: Path
    restart: str
    kill: str


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with _serving(tmp_path, "overlay2") as served:
        yield served


@contextlib.contextmanager
def _serving(tmp_path: Path, driver: str) -> Iterator[Served]:
    path, pid = tmp_path / "plugin.sock", tmp_path / "pid"
    serve = (
        f"PYTHONPATH={ROOT} exec {sys.executable} -m manuka serve --socket {path} "
        f"--driver {driver} --run-dir {tmp_path / 'run'} >>{tmp_path / 'log'} 2>&1"
    )
    start = f"sh -c 'echo $$ >{pid}; {serve}' &"
    end = f"while kill -0 $(cat {pid}) 2>/dev/null; do sleep 0.05; done"
    subprocess.run(start, shell=True, check=True)
    while not accepts(str(path)):
        pass
    try:
        yield Served(
            path,
            restart=f"kill $(cat {pid}) 2>/dev/null; {end}; {start}",
            kill=f"kill -KILL $(cat {pid}); {end}",
        )
    finally:
        subprocess.run(f"kill -KILL $(cat {pid})", shell=True, check=True)


#: What depends on how a driver keeps its layers; the rest is the same code for all.
OF_LAYERS = ("life", "whiteouts", "changes", "streams", "concurrency", "restart")


def test_drivers_of_whole_trees_do_all_that_an_engine_needs_and_differ_in_nothing(
    whole_trees: Maker, tmp_path: Path
) -> None:
    groups = [word for name in OF_LAYERS for word in ("--group", name)]
    with _serving(tmp_path, whole_trees.kind) as served:
        run = conform(served.socket, "--home", whole_trees.folder, *groups,
                      "--restart", served.restart, "--kill", served.kill)  # fmt: skip
    assert run.code == 0, run.said
    assert run.of("failed") == run.of("differs") == run.of("not run") == []
    assert len(run.checks) > 100


def test_overlay2_does_all_that_an_engine_needs_and_differs_in_nothing(served: Served) -> None:
    before = os.listdir(roomy_folder())
    run = conform(served.socket, "--home", roomy_folder(),
                  "--restart", served.restart, "--kill", served.kill)  # fmt: skip
    assert run.code == 0, run.said
    assert "all that an engine needs is there\n" in run.said
    assert run.of("failed") == run.of("differs") == run.of("not run") == []
    assert run.of("skipped") == ["exact_diffs_are_exact"]
    assert len(run.checks) > 400
    assert "left behind" not in run.said
    left = [name for name in set(os.listdir(roomy_folder())) - set(before) if "conform" in name]
    assert not [name for name in left if os.path.exists(os.path.join(roomy_folder(), name, "l"))]


def test_a_plugin_that_serves_already_is_checked_without_init(
    served: Served, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    from tests.unit.wire import Wire

    with Wire(str(served.socket)) as wire:
        assert wire.call("/GraphDriver.Init", {"Home": str(home), "Opts": None}).status == 200
    run = conform(served.socket, "--no-init", "--home", home, "--group", "life",
                  "--group", "handshake")  # fmt: skip
    assert run.code == 0, run.said
    assert "cleanup_loses_nothing" in run.of("skipped")
    assert "init_is_accepted" in run.of("skipped")
    left = [name for name in os.listdir(str(home)) if name not in ("l", ".incomplete")]
    assert left == [], "layers are left behind"
