"""Engine and plugin stop, crash and come back under containers that run.

The one rule: a container never loses its root, and when it ends its mount ends too.  Each test
has a sandbox of its own.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Callable

import pytest

from manuka.toolkit.daemon import Daemon
from manuka.toolkit.sandbox import Sandbox

from .conftest import DRIVER, MakeSandbox
from .images import Image, Layer, SavedImage, busybox
from .steps import (
    box,
    inspect,
    layer_folders,
    layer_mounts,
    load,
    merged,
    run,
    run_sleeping,
    shell,
)

needs_plugin = pytest.mark.skipif(
    DRIVER == "overlay2", reason="there is no plugin to stop in the engine's own driver"
)

End = Callable[[Daemon], None]
ENDS = [pytest.param(Daemon.stop, id="stopped"), pytest.param(Daemon.kill, id="killed")]


def plugin_of(sandbox: Sandbox) -> Daemon:
    assert sandbox.plugin is not None
    return sandbox.plugin


def assert_works(sandbox: Sandbox, container: str) -> None:
    """The container reads, writes and can be looked into."""
    assert shell(sandbox, container, "cat /etc/motd; echo x > /srv/x; cat /srv/x") == "welcome\nx\n"
    out = sandbox.docker("cp", f"{container}:/srv/x", "-").stdout
    assert b"x\n" in out
    listed = sandbox.docker("diff", container).stdout.decode().splitlines()
    assert {"C /srv", "A /srv/x"} <= set(listed)


def assert_ends(sandbox: Sandbox, container: str) -> None:
    """Stopped, it has no mount any more; removed, no folder; and it starts again in between."""
    others = len(layer_mounts(sandbox)) - 1
    sandbox.docker("stop", "-t", "0", container)
    assert len(layer_mounts(sandbox)) == others
    sandbox.docker("start", container)
    assert shell(sandbox, container, "cat /srv/x") == "x\n"
    sandbox.docker("rm", "-f", container)
    assert len(layer_mounts(sandbox)) == others


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


def test_images_and_containers_are_there_after_a_restart_of_the_engine(
    make_sandbox: MakeSandbox,
) -> None:
    sandbox = make_sandbox()
    run_sleeping(sandbox, "one")
    shell(sandbox, "one", "echo x > /srv/x")
    folders = layer_folders(sandbox)
    sandbox.engine.kill_containers()
    sandbox.engine.restart()
    assert layer_mounts(sandbox) == []
    assert layer_folders(sandbox) == folders
    assert SavedImage(sandbox.docker("save", "box:1").stdout).diff_ids == box().diff_ids
    assert run(sandbox, "box:1", "cat /etc/motd") == "welcome\n"
    sandbox.docker("start", "one")
    assert_works(sandbox, "one")
    assert_ends(sandbox, "one")


def test_a_stop_of_the_engine_unmounts_every_layer(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    for name in ("one", "two"):
        run_sleeping(sandbox, name)
    assert len(layer_mounts(sandbox)) == 2
    sandbox.engine.stop()
    assert layer_mounts(sandbox) == []


def test_a_crash_of_the_engine_leaves_no_mount_behind(make_sandbox: MakeSandbox) -> None:
    """Without live-restore, the engine ends what still runs when it comes back."""
    sandbox = make_sandbox()
    run_sleeping(sandbox, "one")
    shell(sandbox, "one", "echo x > /srv/x")
    sandbox.engine.kill()
    sandbox.engine.start()
    assert inspect(sandbox, "one")["State"]["Running"] is False
    wait_for(lambda: layer_mounts(sandbox) == [])
    sandbox.docker("start", "one")
    assert_works(sandbox, "one")
    assert_ends(sandbox, "one")


@pytest.mark.parametrize("end", ENDS)
def test_live_restore_keeps_a_container_over_the_engines_end(
    make_sandbox: MakeSandbox, end: End
) -> None:
    sandbox = make_sandbox(settings={"live-restore": True})
    run_sleeping(sandbox, "one")
    pid = inspect(sandbox, "one")["State"]["Pid"]
    end(sandbox.engine)
    assert len(layer_mounts(sandbox)) == 1
    sandbox.engine.start()
    assert inspect(sandbox, "one")["State"]["Pid"] == pid
    assert len(layer_mounts(sandbox)) == 1
    assert_works(sandbox, "one")
    assert_ends(sandbox, "one")


@needs_plugin
@pytest.mark.parametrize("end", ENDS)
def test_live_restore_keeps_a_container_when_engine_and_plugin_end(
    make_sandbox: MakeSandbox, end: End
) -> None:
    sandbox = make_sandbox(settings={"live-restore": True})
    run_sleeping(sandbox, "one")
    for daemon in (sandbox.engine, plugin_of(sandbox)):
        end(daemon)
    sandbox.start()
    assert_works(sandbox, "one")
    assert_ends(sandbox, "one")


@needs_plugin
@pytest.mark.parametrize("end", ENDS)
def test_running_containers_do_not_notice_that_the_plugin_starts_anew(
    make_sandbox: MakeSandbox, end: End
) -> None:
    sandbox = make_sandbox()
    for name in ("one", "two"):
        run_sleeping(sandbox, name)
    mounts = layer_mounts(sandbox)
    root = merged(sandbox, "one")
    end(plugin_of(sandbox))
    assert layer_mounts(sandbox) == mounts
    with open(os.path.join(root, "etc/motd")) as file:
        assert file.read() == "welcome\n"
    plugin_of(sandbox).start()
    assert layer_mounts(sandbox) == mounts
    for name in ("one", "two"):
        assert_works(sandbox, name)
        assert_ends(sandbox, name)
    assert layer_mounts(sandbox) == []


@needs_plugin
def test_a_container_that_ends_while_the_plugin_is_away_is_unmounted_later(
    make_sandbox: MakeSandbox,
) -> None:
    sandbox = make_sandbox()
    sandbox.docker(
        *("run", "-d", "--network", "none", "--name", "one", "box:1"),
        *("sh", "-c", "until [ -e /srv/end ]; do sleep 0.1; done"),
    )
    root = merged(sandbox, "one")
    plugin_of(sandbox).kill()
    with open(os.path.join(root, "srv/end"), "w"):
        time.sleep(0.5)
    plugin_of(sandbox).start()
    wait_for(lambda: layer_mounts(sandbox) == [])
    sandbox.docker("start", "one")
    sandbox.docker("rm", "-f", "one")
    assert layer_mounts(sandbox) == []


@needs_plugin
@pytest.mark.parametrize("end", ENDS)
def test_a_copy_that_was_going_on_does_not_cost_the_container_its_root(
    make_sandbox: MakeSandbox, end: End
) -> None:
    """A copy is a second user of the mount: who counts one after a restart unmounts too early."""
    sandbox = make_sandbox()
    run_sleeping(sandbox, "one")
    shell(sandbox, "one", "head -c 60000000 /dev/urandom > /srv/big; echo x > /srv/x")
    copying = sandbox.spawn(["docker", "cp", "one:/srv/big", "-"], stdout=subprocess.PIPE)
    assert copying.stdout is not None
    with copying.stdout:
        received = len(copying.stdout.read(1000))
        end(plugin_of(sandbox))
        plugin_of(sandbox).start()
        received += len(copying.stdout.read())
    assert copying.wait(60) == 0
    assert received > 60_000_000
    assert len(layer_mounts(sandbox)) == 1
    assert_works(sandbox, "one")
    assert_ends(sandbox, "one")


@needs_plugin
def test_an_engine_that_crashed_in_a_copy_leaves_no_count_too_high(
    make_sandbox: MakeSandbox,
) -> None:
    sandbox = make_sandbox(settings={"live-restore": True})
    run_sleeping(sandbox, "one")
    shell(sandbox, "one", "head -c 60000000 /dev/urandom > /srv/big; echo x > /srv/x")
    copying = sandbox.spawn(
        ["docker", "cp", "one:/srv/big", "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert copying.stdout is not None
    with copying.stdout:
        copying.stdout.read(1000)
        sandbox.engine.kill()
        copying.stdout.read()
    copying.wait(60)
    sandbox.engine.start()
    assert_works(sandbox, "one")
    assert_ends(sandbox, "one")


@needs_plugin
def test_commands_wait_for_a_plugin_that_is_on_its_way_back(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    plugin_of(sandbox).kill()
    waiting = sandbox.spawn(
        ["docker", "run", "--rm", "--network", "none", "box:1", "cat", "/etc/motd"],
        stdout=subprocess.PIPE,
    )
    time.sleep(1.5)
    plugin_of(sandbox).start()
    assert waiting.communicate(timeout=60)[0] == b"welcome\n"
    assert waiting.returncode == 0


@needs_plugin
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_plugin_killed_in_a_load_leaves_no_half_layer(
    make_sandbox: MakeSandbox, share: float
) -> None:
    sandbox = make_sandbox()
    before = layer_folders(sandbox)
    layer = Layer().folder("many")
    for number in range(300):
        layer.file(f"many/{number}", os.urandom(20_000))
    image = Image("big:1", busybox(), layer)
    archive = image.archive()
    loading = sandbox.spawn(
        ["docker", "load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert loading.stdin is not None
    place = archive.index(layer.tar[:512])
    place += int((len(archive) - place) * share)
    with loading.stdin:
        loading.stdin.write(archive[:place])
        loading.stdin.flush()
        time.sleep(0.3)
        plugin_of(sandbox).kill()
        plugin_of(sandbox).start()
        loading.stdin.write(archive[place:])
    status = loading.wait(120)
    if status != 0:
        load(sandbox, image)
    assert inspect(sandbox, "big:1")["RootFS"]["Layers"] == image.diff_ids
    assert SavedImage(sandbox.docker("save", "big:1").stdout).diff_ids == image.diff_ids
    sandbox.docker("rmi", "big:1")
    assert layer_folders(sandbox) == before


@needs_plugin
def test_an_engine_killed_in_a_load_starts_again_and_loads(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    layer = Layer().file("big", os.urandom(1 << 20) * 30)
    archive = Image("big:1", busybox(), layer).archive()
    loading = sandbox.spawn(
        ["docker", "load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert loading.stdin is not None
    loading.stdin.write(archive[: len(archive) // 2])
    loading.stdin.flush()
    time.sleep(0.3)
    sandbox.engine.kill()
    loading.kill()
    loading.communicate()
    sandbox.engine.start()
    sandbox.docker("load", input=archive)
    assert run(sandbox, "big:1", "wc -c < /big") == f"{30 << 20}\n"


@needs_plugin
def test_the_plugin_answers_again_after_a_pause(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    run_sleeping(sandbox, "one")
    plugin_of(sandbox).freeze()
    waiting = sandbox.spawn(["docker", "cp", "one:/etc/motd", "-"], stdout=subprocess.PIPE)
    time.sleep(1)
    assert waiting.poll() is None
    plugin_of(sandbox).thaw()
    assert b"welcome\n" in waiting.communicate(timeout=30)[0]
    assert_works(sandbox, "one")
