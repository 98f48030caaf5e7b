"""Real disks that are full, out of inodes, or read-only; and a process with no descriptors left."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Callable, Iterator, List, Tuple, Type

import pytest

from manuka.linux.mount import MS_RDONLY, MS_REMOUNT, mount, unmount
from manuka.linux.syncfs import syncfs
from tests.crash.plugins import Nursery, message
from tests.crash.worlds import Scaffold, World, world_in
from tests.layertar import LayerTar
from tests.snapshot import snapshot
from tests.unit.mounts import loop_device, needs_root

pytestmark = needs_root
of_each_kind = pytest.mark.parametrize("kind", [World, Scaffold])

BLOCK = 1024
#: Needs some thirty blocks: for contents, folders, a long link and an attribute.
TAR = (
    LayerTar()
    .folder("a")
    .file("a/one", b"1" * 5000)
    .folder("a/b")
    .symlink("a/b/link", "x" * 200)
    .file("a/b/noted", b"n", xattrs={"user.note": b"n" * 300})
    .folder("c")
    .file("c/two", b"2" * 9000)
    .whiteout("etc/passwd")
    .opaque("srv/deep")
    .bytes()
)


@contextlib.contextmanager
def small_disk(folder: Path, inodes: int = 1000) -> Iterator[Path]:
    """An ext4 on which space is free as soon as it is freed, and nothing is set up later."""
    mkfs = ("mkfs.ext4", "-q", "-b", str(BLOCK), "-m", "0", "-N", str(inodes))
    plain = ("-O", "^has_journal,^uninit_bg,^flex_bg,^metadata_csum", "-E", "lazy_itable_init=0")
    with loop_device(folder, *mkfs, *plain, size="8M") as device:
        target = folder / "mnt"
        target.mkdir()
        mount(device, str(target), "ext4")
        try:
            yield target
        finally:
            unmount(str(target), detach=True)


def settle(disk: Path) -> None:
    """What is to be written is written: only then is free space what it is."""
    fd = os.open(disk, os.O_RDONLY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def use(world: World) -> None:
    """What pulling and running an image asks for; ends at the first refusal."""
    plugin = world.plugin
    for step in (
        lambda: plugin.try_call("Create", message("layer", "base")),
        lambda: plugin.try_apply("layer", "base", TAR),
        lambda: plugin.try_call("CreateReadWrite", message("container", "layer")),
        lambda: plugin.try_call("Get", message("container")),
        lambda: plugin.try_call("Get", message("container")),
    ):
        reply = step()
        assert reply is not None, plugin.log_text()[-2000:]
        if reply.status != 200:
            return
    for _ in range(2):
        plugin.call("Put", ID="container")


def forget(world: World) -> None:
    """What the engine does after a refusal."""
    for layer_id in ("container", "layer"):
        world.plugin.call("Remove", ID=layer_id)


def assert_works(world: World) -> None:
    world.plugin.refusals.clear()
    use(world)
    assert world.plugin.refusals == []
    folder = world.plugin.call("Get", ID="container")["Dir"]
    assert {"a/b/link", "a/one", "c/two"} <= set(snapshot(folder))
    assert os.listdir(f"{folder}/srv/deep") == []
    world.plugin.call("Put", ID="container")
    forget(world)
    world.assert_intact()
    world.assert_tidy()


def tried(world: World, free: Callable[[int], None], measure: Callable[[], Tuple[int, int]]) -> int:
    """Use the driver with nothing free, then one more, until it works; how often it did not."""
    for _ in range(2):  # folders keep the room that they once took
        use(world)
        forget(world)
    refused: List[str] = []
    for number in range(400):
        free(number)
        before = measure()
        world.plugin.refusals.clear()
        use(world)
        refusals = list(world.plugin.refusals)
        forget(world)
        assert measure() == before, f"{number}: space is lost after {refusals}"
        world.assert_intact()
        world.assert_tidy()
        if not refusals:
            break
        ((layer_id, text),) = refusals
        assert os.strerror(errno.ENOSPC) in text
        assert layer_id in text
        refused.append(text)
    else:
        pytest.fail(f"it never worked; the last: {refused[-1]}")
    assert_works(world)
    return len(refused)


@of_each_kind
def test_on_a_full_disk_every_step_fails_clearly_and_gives_the_space_back(
    nursery: Nursery, disk: Path, kind: Type[World]
) -> None:
    with small_disk(disk) as small, world_in(nursery, disk, home_on=small, kind=kind) as world:
        ballast = os.open(small / "ballast", os.O_RDWR | os.O_CREAT)

        def measure() -> Tuple[int, int]:
            settle(small)
            found = os.statvfs(small)
            return found.f_bfree, found.f_ffree

        def leave(blocks: int) -> None:
            os.ftruncate(ballast, 0)
            wanted = measure()[0] - blocks
            while wanted > 0:
                try:
                    os.posix_fallocate(ballast, 0, wanted * BLOCK)
                    break
                except OSError:  # the list of so many blocks needs one itself
                    os.ftruncate(ballast, 0)
                    wanted -= 1

        try:
            count = tried(world, leave, measure)
        finally:
            os.close(ballast)
        assert count > 15


@of_each_kind
def test_a_disk_without_free_inodes_fails_as_clearly(
    nursery: Nursery, disk: Path, kind: Type[World]
) -> None:
    inodes = small_disk(disk, inodes=200)
    with inodes as small, world_in(nursery, disk, home_on=small, kind=kind) as world:
        spare = small / "spare"
        spare.mkdir()

        def measure() -> Tuple[int, int]:
            settle(small)
            found = os.statvfs(small)
            return found.f_bfree, found.f_ffree

        def leave(inodes: int) -> None:
            names = iter(range(1000))
            while measure()[1] > inodes:
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(spare / str(next(names)), os.O_CREAT | os.O_EXCL))
            while measure()[1] < inodes:
                os.unlink(spare / os.listdir(spare)[0])

        assert tried(world, leave, measure) > 12


def test_on_a_disk_gone_read_only_what_can_be_read_is_and_the_rest_is_refused(
    nursery: Nursery, disk: Path
) -> None:
    with small_disk(disk) as small, world_in(nursery, disk, home_on=small) as world:
        plugin = world.plugin
        plugin.call("Status")
        mount("none", str(small), "ext4", MS_REMOUNT | MS_RDONLY)
        for name, sent in (
            ("Create", message("layer", "base")),
            ("CreateReadWrite", message("layer", "box")),
            ("Get", message("box")),
            ("Remove", message("box")),
        ):
            reply = plugin.try_call(name, sent)
            assert reply is not None
            assert os.strerror(errno.EROFS) in reply.error, name
            assert sent["ID"] in reply.error
        reply = world.try_init()
        assert reply is not None
        assert os.strerror(errno.EROFS) in reply.error
        for layer_id, facts in world.layers.items():
            assert plugin.diff(layer_id, facts.parent) == facts.diff
        mount("none", str(small), "ext4", MS_REMOUNT)
        assert_works(world)


def test_without_descriptors_calls_fail_or_wait_and_the_plugin_lives_on(
    nursery: Nursery, disk: Path
) -> None:
    with world_in(nursery, disk) as world:
        plugin = world.plugin
        in_use = len(os.listdir(f"/proc/{plugin.pid}/fd"))
        failed = waited = 0
        for spare in range(12):
            plugin.refusals.clear()
            plugin.patience = 5
            before = plugin.limit(in_use + spare)
            try:
                use(world)
            except TimeoutError:  # a connection that nobody can take yet
                waited += 1
            except AssertionError:  # a Put has to succeed elsewhere
                assert plugin.refusals != []
            plugin.limit(before)
            plugin.hang_up()
            plugin.patience = 60
            failed += bool(plugin.refusals)
            for layer_id, text in plugin.refusals:
                assert os.strerror(errno.EMFILE) in text
                assert layer_id in text
            assert plugin.alive()
            for _ in range(2):
                plugin.call("Put", ID="container")
            forget(world)
            world.assert_intact()
            world.assert_tidy()
        assert failed
        assert len(plugin.log_text()) < 50_000, "it fills the log"
        assert_works(world)
