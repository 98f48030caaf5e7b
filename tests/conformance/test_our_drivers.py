"""What this package serves passes its own kit, with nothing that differs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

from tests.conformance.runs import Served, conform, needs_root, roomy_folder, serving
from tests.unit.drivers import Maker, btrfs, whole_trees

__all__ = ["btrfs", "whole_trees"]  # fixtures

#: For a run of everything on a machine that has much else to do.
_PATIENCE = 840

pytestmark = [needs_root, pytest.mark.timeout(_PATIENCE + 60)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, "overlay2") as served:
        yield served


#: What depends on how a driver keeps its layers; the rest is the same code for all.
OF_LAYERS = (
    *("life", "inheritance", "independence", "whiteouts", "changes"),
    *("streams", "concurrency", "restart"),
)


def test_drivers_of_whole_trees_do_all_that_an_engine_needs_and_differ_in_nothing(
    whole_trees: Maker, tmp_path: Path
) -> None:
    groups = [word for name in OF_LAYERS for word in ("--group", name)]
    with serving(tmp_path, whole_trees.kind) as served:
        run = conform(served.socket, "--home", whole_trees.folder, *groups,
                      "--restart", served.restart, "--kill", served.kill,
                      timeout=_PATIENCE)  # fmt: skip
    assert run.code == 0, run.said
    assert run.of("failed") == run.of("differs") == run.of("not run") == []
    assert len(run.checks) > 100


def test_overlay2_does_all_that_an_engine_needs_and_differs_in_nothing(served: Served) -> None:
    before = os.listdir(roomy_folder())
    run = conform(served.socket, "--home", roomy_folder(),
                  "--restart", served.restart, "--kill", served.kill,
                  timeout=_PATIENCE)  # fmt: skip
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
