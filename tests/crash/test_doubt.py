"""A disk that cannot say whether a layer is there, or whole, has not said no.

The kernel itself answers EIO to each question about a path, in turn, and the call fails with that.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Iterator, Tuple, Type

import pytest

from tests.crash import tracer
from tests.crash.plugins import Nursery, message
from tests.crash.tracer import Plan
from tests.crash.worlds import Btrfs, Scaffold, Vfs, World, world_in
from tests.unit.mounts import file_system, mounted, needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(not tracer.supported, reason="knows the system calls of x86_64 only"),
]
of_each_kind = pytest.mark.parametrize("kind", [World, Vfs, Btrfs, Scaffold])

QUESTIONS = ("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2")
NO = os.strerror(errno.EIO)


@pytest.fixture
def world(kind: Type[World], nursery: Nursery, tmp_path: Path) -> Iterator[World]:
    disk = file_system(tmp_path, "mkfs.btrfs", "-q") if kind is Btrfs else mounted(tmp_path / "mnt")
    with disk as folder, world_in(nursery, folder, kind=kind) as made:
        yield made


def half_made(world: World) -> None:
    """A layer whose tar was cut off."""
    world.plugin.call("Create", ID="half", Parent="base")
    reply = world.plugin.try_apply("half", "base", b"no tar" * 1000)
    assert reply is not None
    assert reply.status != 200
    assert (world.home / "half" / "unpacking").exists()


def asked(world: World, path: Path, number: int, name: str, sent: dict) -> Tuple[bool, str]:
    """Make a call of which the question about `path` that is the `number`th is not answered.

    Whether there was such a question, and the error of the reply.
    """
    world.plugin.arm(Plan(number, errno.EIO, QUESTIONS, str(path)))
    reply = world.plugin.try_call(name, sent)
    seen = world.plugin.disarm()
    assert seen.alive
    assert reply is not None
    return seen.done, reply.error if reply.status != 200 else ""


CALLS = [
    ("Get", message("half")),
    ("Create", message("child", "half")),
    ("CreateReadWrite", message("child", "half")),
    ("Diff", message("half", "base")),
    ("Changes", message("half", "base")),
]


@of_each_kind
@pytest.mark.parametrize(("name", "sent"), CALLS, ids=[name for name, _ in CALLS])
def test_a_layer_is_not_whole_because_its_mark_cannot_be_seen(
    world: World, name: str, sent: dict
) -> None:
    half_made(world)
    done, error = asked(world, world.home / "half" / "unpacking", 1, name, sent)
    assert done, "nobody looked for the mark"
    assert NO in error
    assert sent["ID"] in error
    assert not (world.home / "child").exists()
    _, error = asked(world, world.home / "half" / "unpacking", 0, name, sent)
    assert "not whole" in error
    world.plugin.call("Remove", ID="half")
    world.assert_intact()
    world.assert_tidy()


@of_each_kind
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("Exists", message("every")),
        ("Get", message("every")),
        ("Create", message("every", "base")),
        ("Create", message("child", "every")),
        ("CreateReadWrite", message("every", "base")),
        ("GetMetadata", message("every")),
    ],
    ids=lambda value: value if isinstance(value, str) else value["ID"],
)
def test_a_layer_is_not_gone_because_its_directory_cannot_be_seen(
    world: World, name: str, sent: dict
) -> None:
    below = world.home / "every"
    number = 0
    done = True
    while done:
        number += 1
        done, error = asked(world, below, number, name, sent)
        assert done or number > 1, "nobody looked"
        if name == "Get" and not error:  # overlay2 mounts a second time when the first try failed
            world.plugin.call("Put", ID="every")
        elif done:
            assert NO in error, f"question {number} about {below} was answered by the plugin"
            assert sent["ID"] in error
        else:
            world.plugin.call("Remove", ID="child")
        world.assert_intact()
        world.assert_tidy()


@pytest.mark.parametrize("kind", [World])
@pytest.mark.parametrize("part", ["work", "diff"])
def test_a_layer_that_cannot_be_searched_for_redirections_is_taken_to_have_some(
    world: World, part: str
) -> None:
    """They are looked for once, in a home that another driver made; to miss one loses files."""
    world.plugin.kill()
    os.rmdir(world.home / ".incomplete")
    world.plugin.start()
    below = str(world.home / "box" / part)
    world.plugin.arm(Plan(1, errno.EIO, (*QUESTIONS, "open", "openat", "openat2"), below))
    world.plugin.call("Status")
    assert world.plugin.disarm().done
    noted = [path.parent.name for path in world.home.glob("*/redirected")]
    assert noted == ["box"]
    assert NO in world.plugin.log_text()
    (world.home / "box" / "redirected").unlink()
    world.assert_intact()
    world.assert_tidy()


@pytest.mark.parametrize("kind", [World])
@pytest.mark.parametrize("number", [1, 2])
def test_a_short_link_that_cannot_be_followed_is_kept(world: World, number: int) -> None:
    link = world.home / "l" / world.layers["base"].link
    before = os.lstat(link).st_ino
    world.plugin.restart()
    names = (*QUESTIONS, "readlink", "readlinkat")
    world.plugin.arm(Plan(number, errno.EIO, names, str(link)))
    world.plugin.call("Status")
    assert world.plugin.disarm().done
    assert os.lstat(link).st_ino == before
    world.assert_intact()
    world.assert_tidy()


@pytest.mark.parametrize("kind", [World])
def test_a_lower_layer_that_cannot_be_read_is_not_said_to_be_gone(world: World) -> None:
    """The advice for one that is gone is to remove images."""
    link = str(world.home / "l" / world.layers["base"].link)
    world.plugin.arm(Plan(1, errno.EIO, ("readlink", "readlinkat"), link))
    reply = world.plugin.try_call("GetMetadata", message("every"))
    assert world.plugin.disarm().done
    assert reply is not None
    assert NO in reply.error
    world.assert_intact()
    world.assert_tidy()
