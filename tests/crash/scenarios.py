"""Every operation of the driver, as three acts: before the crash, the crash, and afterwards.

Each is a generator over a `worlds.World`: it makes ready, yields, does the one operation that is
going to be hit, yields, and says what has to hold when the plugin is back.  At its end the world
is as it was at its beginning, so that the next hit can follow.

The operation may come to its end or not; nobody has to be told which, for either is right unless
it was acknowledged.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, Generator, List, Optional, Tuple, Type

from tests.crash.plugins import message
from tests.crash.worlds import EMPTY, EVERY_KIND, Scaffold, World, is_mounted
from tests.unit.wire import Reply

Acts = Generator[None, None, None]
Scenario = Callable[[World], Acts]

SCENARIOS: Dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def _acknowledged(reply: Optional[Reply]) -> bool:
    return reply is not None and reply.status == 200


# --- layers come and go ---------------------------------------------------------------------------


@scenario
def create(world: World) -> Acts:
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Create", message("new", "base")))
    yield
    if acknowledged:
        world.plugin.apply("new", "base", EVERY_KIND)
        world.assert_like_every(world.facts("new", "base"))
    world.assert_can_be_made_again("new", "base")


@scenario
def create_a_base(world: World) -> Acts:
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Create", message("new")))
    yield
    if acknowledged:
        world.plugin.apply("new", "", EMPTY)
    world.assert_can_be_made_again("new", "")


@scenario
def create_over_what_a_crash_left(world: World) -> Acts:
    world.plugin.call("Create", ID="new", Parent="base")
    (world.home / "new" / "unpacking").touch()
    yield
    world.plugin.try_call("Create", message("new", "base"))
    yield
    world.assert_can_be_made_again("new", "base")


@scenario
def create_read_write(world: World) -> Acts:
    yield
    acknowledged = _acknowledged(world.plugin.try_call("CreateReadWrite", message("new", "box")))
    yield
    if acknowledged:
        folder = world.plugin.call("Get", ID="new")["Dir"]
        assert os.path.exists(f"{folder}/srv/box")
        world.plugin.call("Put", ID="new")
    world.assert_can_be_made_again("new", "box")


@scenario
def remove(world: World) -> Acts:
    world.make("new", "base", EVERY_KIND)
    del world.layers["new"]
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Remove", message("new")))
    yield
    if acknowledged:
        assert not (world.home / "new").exists()
    world.assert_can_be_made_again("new", "base")


@scenario
def remove_a_mounted_layer(world: World) -> Acts:
    world.plugin.call("CreateReadWrite", ID="new", Parent="base")
    for _ in range(2):
        world.plugin.call("Get", ID="new")
    yield
    world.plugin.try_call("Remove", message("new"))
    yield
    world.assert_can_be_made_again("new", "base")


# --- tars in and out ------------------------------------------------------------------------------


@scenario
def apply_diff(world: World) -> Acts:
    world.plugin.call("Create", ID="new", Parent="base")
    yield
    acknowledged = _acknowledged(world.plugin.try_apply("new", "base", EVERY_KIND))
    yield
    if acknowledged:
        world.assert_like_every(world.facts("new", "base"))
    elif (world.home / "new" / "unpacking").exists():
        for call, of in (("Get", "new"), ("Diff", "new"), ("Create", "child")):
            parent = "new" if of == "child" else "base"
            reply = world.plugin.try_call(call, message(of, parent))
            assert reply is not None
            assert "not whole" in reply.error, (call, reply)
    world.assert_can_be_made_again("new", "base")


@scenario
def diff(world: World) -> Acts:
    yield
    reply = world.plugin.try_call("Diff", message("every", "base"))
    if _acknowledged(reply):
        assert reply is not None
        assert reply.body == world.layers["every"].diff
    yield


@scenario
def diff_by_comparing_trees(world: World) -> Acts:
    yield
    world.plugin.try_call("Diff", message("box", "base"))
    yield
    world.assert_unmounted("box", "base")


@scenario
def changes(world: World) -> Acts:
    yield
    world.plugin.try_call("Changes", message("box", "box-init"))
    yield


@scenario
def changes_by_comparing_trees(world: World) -> Acts:
    yield
    world.plugin.try_call("Changes", message("box", "every"))
    yield
    world.assert_unmounted("box", "every")


@scenario
def diff_size_and_metadata(world: World) -> Acts:
    yield
    world.plugin.try_call("DiffSize", message("box", "box-init"))
    world.plugin.try_call("GetMetadata", message("box"))
    yield


# --- mounts ---------------------------------------------------------------------------------------


def _container(world: World) -> None:
    world.plugin.call("CreateReadWrite", ID="new", Parent="box-init")


def _assert_mounts_and_goes(world: World) -> None:
    """The container's tree is there for a user, and nothing of it is when it was removed."""
    folder = world.plugin.call("Get", ID="new")["Dir"]
    with open(f"{folder}/srv/box-init") as file:
        assert file.read() == "box-init"
    with open(f"{folder}/written", "w") as file:
        file.write("w")
    world.plugin.call("Put", ID="new")
    world.plugin.call("Remove", ID="new")


@scenario
def get(world: World) -> Acts:
    _container(world)
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Get", message("new")))
    yield
    if acknowledged:
        assert (world.home / "new" / "merged" / "srv" / "box-init").exists()
        world.plugin.call("Put", ID="new")
        assert not (world.home / "new" / "merged").exists()
    _assert_mounts_and_goes(world)


@scenario
def get_again(world: World) -> Acts:
    _container(world)
    world.plugin.call("Get", ID="new")
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Get", message("new")))
    yield
    # A new engine knows of no users, and a mount that it finds has one.
    for user in range(1 if world.engine_is_new else 1 + acknowledged):
        assert (world.home / "new" / "merged" / "srv" / "box-init").exists(), f"user {user}"
        world.plugin.call("Put", ID="new")
    _assert_mounts_and_goes(world)


@scenario
def put_of_one_of_two(world: World) -> Acts:
    _container(world)
    for _ in range(2):
        world.plugin.call("Get", ID="new")
    yield
    world.plugin.try_call("Put", message("new"))
    yield
    assert (world.home / "new" / "merged" / "srv" / "box-init").exists(), "its user lost its root"
    _assert_mounts_and_goes(world)


@scenario
def put_of_the_last(world: World) -> Acts:
    _container(world)
    world.plugin.call("Get", ID="new")
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Put", message("new")))
    yield
    if acknowledged:
        assert not is_mounted(world, "new")
    _assert_mounts_and_goes(world)


@scenario
def cleanup(world: World) -> Acts:
    _container(world)
    for _ in range(2):
        world.plugin.call("Get", ID="new")
    yield
    acknowledged = _acknowledged(world.plugin.try_call("Cleanup", {}))
    yield
    if acknowledged:
        assert not (world.home / "new" / "merged" / "srv").exists()
    world.plugin.call("Cleanup")
    _assert_mounts_and_goes(world)


# --- starts ---------------------------------------------------------------------------------------


@scenario
def init(world: World) -> Acts:
    """An engine starts while the plugin serves already."""
    yield
    world.try_init()
    yield
    world.init()


@scenario
def status(world: World) -> Acts:
    """The first one after Init tries out what this kernel's overlayfs does."""
    world.init()
    yield
    world.plugin.try_call("Status", {})
    yield


@scenario
def recovery(world: World) -> Acts:
    """The first call after a crash, which tidies; and an engine's start, which tidies more."""
    plant_rubbish(world)
    world.plugin.restart()
    yield
    if _acknowledged(world.plugin.try_call("Status", {})):
        world.try_init()
    yield
    world.init()
    assert not (world.home / "half").exists(), "unfinished layers go when an engine starts"


def plant_rubbish(world: World) -> None:
    """All that crashes can leave, at once."""
    world.plugin.call("Create", ID="half", Parent="base")
    (world.home / "half" / "unpacking").touch()
    (world.home / "half" / "diff" / "file").write_text("half")
    staged = world.home / ".incomplete" / "staged.ABC"
    (staged / "diff").mkdir(parents=True)
    (staged / "diff" / "file").write_text("old")
    os.symlink("../gone/diff", world.home / "l" / ("A" * 26))
    (world.home / "box" / "merged").mkdir()
    (world.home / ".incomplete" / "link.box").write_text("A")
    os.unlink(world.home / "l" / world.layers["base"].link)


#: Every operation of overlay2, and those that a driver has which mounts nothing: the one that
#: ``manuka new`` makes.
CASES: List[Tuple[Type[World], str]] = [(World, name) for name in SCENARIOS] + [
    (Scaffold, act.__name__)
    for act in (
        *(create, create_a_base, create_over_what_a_crash_left, create_read_write, remove),
        *(apply_diff, diff, changes, diff_size_and_metadata, init, status),
    )
]
