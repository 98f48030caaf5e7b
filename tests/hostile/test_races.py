"""Somebody swaps the layer's folders for links while a tar is unpacked: nothing outside changes."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
from pathlib import Path

import pytest

from manuka.errors import ManukaError
from manuka.layers.apply import apply_layer, apply_overlay
from manuka.linux import openat2
from tests.layertar import LayerTar
from tests.snapshot import snapshot
from tests.unit.mounts import needs_root

pytestmark = needs_root

ROUNDS = 20


class Swapping:
    """A thread that makes ``d`` a folder and a link to the outside by turns."""

    def __init__(self, tree: Path, outside: Path) -> None:
        self.tree, self.swaps = str(tree), 0
        self._outside = str(outside)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Swapping:
        # The round before may have ended in the middle of a swap.
        for name in (".link", ".aside", "d"):
            path = f"{self.tree}/{name}"
            if os.path.islink(path):
                os.unlink(path)
            elif name != "d":
                shutil.rmtree(path, ignore_errors=True)
        os.symlink(self._outside, f"{self.tree}/.link")
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join(60)
        with contextlib.suppress(OSError):
            os.unlink(f"{self.tree}/.link")

    def _run(self) -> None:
        folder, aside, link = (f"{self.tree}/{name}" for name in ("d", ".aside", ".link"))
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                os.rename(folder, aside)
                os.rename(link, folder)
                self.swaps += 1
            with contextlib.suppress(OSError):
                os.rename(folder, link)
                os.rename(aside, folder)


def tar_into_the_folder() -> LayerTar:
    tar = LayerTar().folder("d")
    for number in range(60):
        tar.file(f"d/secret{number % 3}", b"evil", mode=0o777, uid=9, xattrs={"trusted.evil": b""})
        tar.file("between")
        tar.symlink("d/link", "x").fifo("d/fifo").hardlink("d/hard", "between")
        tar.whiteout(f"d/secret{number % 3}")
        tar.folder("d/sub", mode=0o777).file("d/sub/f", b"evil").opaque("d/sub")
    return tar.opaque("d").folder("d", mode=0o777, uid=9)


@pytest.mark.parametrize("by_hand", [False, True], ids=["openat2", "by hand"])
@pytest.mark.parametrize("way", ["merging", "overlaying"])
def test_a_folder_swapped_for_a_link_while_a_tar_is_unpacked_leads_nowhere(
    tmp_path, monkeypatch, way, by_hand
):
    if by_hand:
        monkeypatch.setattr(openat2, "_has_openat2", False)
    outside, tree, lower = (tmp_path / name for name in ("outside", "tree", "lower"))
    for folder in (outside, outside / "sub", tree, lower, lower / "d", lower / "d" / "sub"):
        folder.mkdir()
    for number in range(3):
        (outside / f"secret{number}").write_text("secret")
        (lower / "d" / f"secret{number}").write_text("lower")
    before = snapshot(outside), snapshot(lower), os.stat(outside)
    tar = tar_into_the_folder().bytes()
    swaps = 0
    for _ in range(ROUNDS):
        with Swapping(tree, outside) as swapping, contextlib.suppress(ManukaError, OSError):
            stream = io.BytesIO(tar)
            if way == "merging":
                apply_layer(stream, str(tree))
            else:
                apply_overlay(stream, str(tree), lambda: [str(lower)])
        swaps += swapping.swaps
    after = snapshot(outside), snapshot(lower), os.stat(outside)
    assert after[:2] == before[:2]
    assert (after[2].st_mode, after[2].st_uid, after[2].st_mtime_ns, after[2].st_ctime_ns) == (
        before[2].st_mode,
        before[2].st_uid,
        before[2].st_mtime_ns,
        before[2].st_ctime_ns,
    )
    assert swaps >= ROUNDS, "nothing was swapped while it was unpacked"
