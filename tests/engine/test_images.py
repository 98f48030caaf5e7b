"""Images come in and go out as they are: import, load, commit, save, push, pull, rmi, prune."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox

from .conftest import MakeSandbox
from .images import Image, Layer, SavedImage, as_listed, busybox, entries
from .steps import assert_soon, box, inspect, layer_folders, load, run, run_sleeping, shell


@pytest.fixture(autouse=True)
def _nothing_stays(sandbox: Sandbox) -> Iterator[None]:
    before = layer_folders(sandbox)
    yield
    assert_soon(sandbox, before, [])


def three_layers(tag: str) -> Image:
    """A file in the lowest layer is changed in the second and deleted in the third."""
    return Image(
        tag,
        busybox(),
        Layer().file("srv/one", b"1\n").folder("srv/sub").file("srv/sub/x", b"x").file("srv/two"),
        Layer().file("srv/one", b"changed\n").whiteout("srv/two"),
        Layer().folder("srv/sub").opaque("srv/sub").file("srv/sub/y", b"y"),
    )


def test_an_imported_tar_is_an_image_with_its_content(sandbox: Sandbox, name: str) -> None:
    layer = busybox().file("srv/hello", b"hello\n", 0o640, owner=(7, 8))
    said = sandbox.docker("import", "-", f"{name}:1", input=layer.tar).stdout.decode().strip()
    image = inspect(sandbox, f"{name}:1")
    assert image["Id"] == said
    assert image["RootFS"]["Layers"] == [layer.diff_id]
    assert image["Size"] == sum(entry.size or len(entry.linkname) for entry in entries(layer.tar))
    assert run(sandbox, f"{name}:1", "cat /srv/hello; stat -c '%a %u %g' /srv/hello") == (
        "hello\n640 7 8\n"
    )
    sandbox.docker("rmi", f"{name}:1")


def test_a_loaded_image_has_the_ids_of_its_archive(sandbox: Sandbox, name: str) -> None:
    image = three_layers(f"{name}:1")
    load(sandbox, image)
    found = inspect(sandbox, image.tag)
    assert found["Id"] == image.id
    assert found["RootFS"]["Layers"] == image.diff_ids
    script = "cat /srv/one; ls /srv/sub /srv"
    assert run(sandbox, image.tag, script) == "changed\n/srv:\none\nsub\n\n/srv/sub:\ny\n"
    sandbox.docker("rmi", image.tag)


def test_a_saved_image_is_byte_for_byte_what_was_loaded(
    sandbox: Sandbox, native: Sandbox, name: str
) -> None:
    image = three_layers(f"{name}:1")
    for engine in (sandbox, native):
        load(engine, image)
        saved = SavedImage(engine.docker("save", image.tag).stdout)
        assert saved.id == image.id
        assert saved.layers == [layer.tar for layer in image.layers]
        engine.docker("rmi", image.tag)


CHANGES = """
cd /srv/tree
echo new > new; chown 5:6 new; chmod 4755 new
mkdir -p deep/er; echo x > deep/er/x; ln -s x deep/er/link; ln deep/er/x deep/er/hard
mkfifo fifo; mknod null c 1 3
rm b; rm -r ../../etc/motd
touch -h -d @1000000000 new deep/er/* deep/er deep fifo null . .. /etc /srv
"""


def test_a_committed_layer_is_the_one_that_overlay2_would_make(
    sandbox: Sandbox, native: Sandbox, name: str
) -> None:
    listings = []
    for engine in (sandbox, native):
        engine.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", CHANGES)
        engine.docker("commit", name, f"{name}:1")
        engine.docker("rm", name)
        saved = SavedImage(engine.docker("save", f"{name}:1").stdout)
        assert saved.diff_ids == inspect(engine, f"{name}:1")["RootFS"]["Layers"]
        listings.append(as_listed(saved.layers[-1]))
        engine.docker("rmi", f"{name}:1")
    assert listings[0] == listings[1]
    names = [entry[0] for entry in listings[0]]
    assert {"srv/tree/new", "srv/tree/.wh.b", "etc/.wh.motd", "srv/tree/deep/er/x"} <= set(names)


def test_a_container_of_a_committed_image_sees_what_was_committed(
    sandbox: Sandbox, name: str
) -> None:
    sandbox.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", CHANGES)
    sandbox.docker("commit", name, f"{name}:1")
    sandbox.docker("rm", name)
    script = "cd /srv/tree; ls; stat -c '%a %u %g %Y' new; cat deep/er/link; ls /etc"
    words = run(sandbox, f"{name}:1", script).split()
    assert words == [
        *("a", "b2", "deep", "fifo", "link", "new", "null", "4755", "5", "6", "1000000000", "x"),
        *("group", "hostname", "hosts", "mtab", "passwd", "resolv.conf"),
    ]
    sandbox.docker("rmi", f"{name}:1")


def test_the_size_of_a_committed_layer_is_that_of_its_files(sandbox: Sandbox, name: str) -> None:
    script = "head -c 12345 /dev/zero > /srv/zeros; ln /srv/zeros /srv/again; ln -s zeros /srv/s"
    sandbox.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", script)
    sandbox.docker("commit", name, f"{name}:1")
    sandbox.docker("rm", name)
    grown = inspect(sandbox, f"{name}:1")["Size"] - inspect(sandbox, "box:1")["Size"]
    assert grown == 12345 + len("zeros")
    sandbox.docker("rmi", f"{name}:1")


def test_removing_an_image_leaves_the_layers_that_others_share(sandbox: Sandbox, name: str) -> None:
    below = three_layers(f"{name}:1")
    above = Image(f"{name}:2", *below.layers, Layer().file("srv/more"))
    before = layer_folders(sandbox)
    load(sandbox, below)
    with_below = layer_folders(sandbox)
    load(sandbox, above)
    assert len(layer_folders(sandbox) - with_below) == 1
    sandbox.docker("rmi", above.tag)
    assert layer_folders(sandbox) == with_below
    assert run(sandbox, below.tag, "cat /srv/one") == "changed\n"
    sandbox.docker("rmi", below.tag)
    assert layer_folders(sandbox) == before


def test_an_image_that_a_container_uses_keeps_its_layers(sandbox: Sandbox, name: str) -> None:
    """It is the engine that guards them: a driver is only told to remove what nothing needs."""
    image = three_layers(f"{name}:1")
    load(sandbox, image)
    run_sleeping(sandbox, name, image=image.tag)
    layers = layer_folders(sandbox)
    assert sandbox.docker("rmi", image.tag, check=False).returncode != 0
    sandbox.docker("rmi", "-f", image.tag, check=False)
    assert layer_folders(sandbox) == layers
    assert shell(sandbox, name, "cat /srv/one; ls /srv/sub") == "changed\ny\n"
    sandbox.docker("rm", "-f", name)
    sandbox.docker("rmi", image.id, check=False)


def test_prune_removes_what_is_not_used(sandbox: Sandbox, name: str) -> None:
    load(sandbox, three_layers(f"{name}:1"))
    sandbox.docker("run", "--network", "none", "--name", name, f"{name}:1", "true")
    sandbox.docker("run", "-d", "--network", "none", "--name", name + "b", "box:1", "sleep", "1000")
    sandbox.docker("system", "prune", "--all", "--force")
    assert sandbox.docker("images", "-q").stdout.split() == [box().id[7:19].encode()]
    assert sandbox.docker("ps", "-aq").stdout.count(b"\n") == 1
    sandbox.docker("rm", "-f", name + "b")


def test_an_image_of_125_layers_runs(sandbox: Sandbox, name: str) -> None:
    image = Image(f"{name}:1", busybox())
    for number in range(1, 125):
        image.add(Layer().file(f"srv/{number}", b"%d\n" % number).file("srv/top", b"%d" % number))
    load(sandbox, image)
    assert inspect(sandbox, image.tag)["RootFS"]["Layers"] == image.diff_ids
    output = run(sandbox, image.tag, "cat /srv/top; cat /srv/1 /srv/77; ls /srv | wc -l")
    assert output == "1241\n77\n125\n"
    saved = SavedImage(sandbox.docker("save", image.tag).stdout)
    assert saved.diff_ids == image.diff_ids
    sandbox.docker("rmi", image.tag)


def test_a_broken_archive_is_refused_and_leaves_nothing(sandbox: Sandbox, name: str) -> None:
    whole = Layer().file("srv/big", os.urandom(3_000_000))
    image = Image(f"{name}:1", busybox(), whole)
    cut = image.archive()
    place = cut.index(whole.tar[512:2000]) + 1_000_000
    result = sandbox.docker("load", input=cut[:place], check=False)
    assert result.returncode != 0
    assert sandbox.docker("images", "-q", f"{name}:1").stdout == b""


@pytest.mark.parametrize("behind", [0, 300, 70_000, 1 << 20])
def test_a_layer_that_cannot_be_unpacked_is_an_error_at_once_and_the_engine_lives(
    sandbox: Sandbox, behind: int
) -> None:
    """The engine must have sent all before it hears of it, or it repeats itself, or even falls."""
    for number in range(6):
        layer = Layer().file("n" * 256).file(f"srv/{number}", os.urandom(behind))
        started = time.monotonic()
        result = sandbox.docker("load", input=Image("bad:1", layer).archive(), check=False)
        said = result.stdout + result.stderr
        assert b"File name too long" in said or b"file name too long" in said
        assert time.monotonic() - started < 12, "the engine's repetitions take 15 seconds"
    assert sandbox.engine.running


def test_a_pushed_image_comes_back_the_same(
    sandbox: Sandbox, native: Sandbox, registry: str, name: str
) -> None:
    image = three_layers(f"{registry}/{name}:1")
    load(sandbox, image)
    sandbox.docker("push", image.tag)
    pushed = inspect(sandbox, image.tag)
    sandbox.docker("rmi", image.tag)
    for engine in (sandbox, native):
        engine.docker("pull", image.tag)
        pulled = inspect(engine, image.tag)
        assert pulled["Id"] == image.id
        assert pulled["RootFS"]["Layers"] == image.diff_ids
        assert pulled["RepoDigests"] == pushed["RepoDigests"]
        assert run(engine, image.tag, "cat /srv/one") == "changed\n"
        engine.docker("rmi", image.tag)


def test_a_container_that_was_committed_can_be_pushed_and_pulled(
    sandbox: Sandbox, registry: str, name: str
) -> None:
    tag = f"{registry}/{name}:1"
    sandbox.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", CHANGES)
    sandbox.docker("commit", name, tag)
    sandbox.docker("rm", name)
    committed = inspect(sandbox, tag)
    sandbox.docker("push", tag)
    sandbox.docker("rmi", tag)
    sandbox.docker("pull", tag)
    assert inspect(sandbox, tag)["Id"] == committed["Id"]
    assert run(sandbox, tag, "cat /srv/tree/new") == "new\n"
    sandbox.docker("rmi", tag)


def test_two_pulls_at_once_share_what_is_common(sandbox: Sandbox, registry: str, name: str) -> None:
    common = [busybox(), *(Layer().file(f"srv/{i}", os.urandom(300_000)) for i in range(5))]
    images = [
        Image(f"{registry}/{name}:{tag}", *common, Layer().file("srv/tag", tag.encode()))
        for tag in ("a", "b")
    ]
    for image in images:
        load(sandbox, image)
        sandbox.docker("push", image.tag)
    sandbox.docker("rmi", *(image.tag for image in images))
    pulls = [
        sandbox.spawn(["docker", "pull", "-q", image.tag], stdout=subprocess.DEVNULL)
        for image in images
    ]
    assert [pull.wait(60) for pull in pulls] == [0, 0]
    for image in images:
        assert inspect(sandbox, image.tag)["RootFS"]["Layers"] == image.diff_ids
        assert run(sandbox, image.tag, "cat /srv/tag") == image.tag[-1]
    sandbox.docker("rmi", *(image.tag for image in images))


def test_a_layer_with_much_padding_behind_its_end_keeps_its_digest(
    sandbox: Sandbox, name: str
) -> None:
    padded = busybox().tar + bytes(1 << 20)
    sandbox.docker("import", "-", f"{name}:1", input=padded)
    saved = SavedImage(sandbox.docker("save", f"{name}:1").stdout)
    assert saved.diff_ids == inspect(sandbox, f"{name}:1")["RootFS"]["Layers"]
    assert saved.layers == [padded]
    sandbox.docker("rmi", f"{name}:1")


@pytest.mark.parametrize("padding_left_out", [0, 500])
def test_a_layer_without_an_end_mark_is_whole_as_it_is_with_the_engines_own_driver(
    sandbox: Sandbox, native: Sandbox, registry: str, name: str, padding_left_out: int
) -> None:
    """Some builders write none; the stream's end and the digest tell whether all has come."""
    layer = Layer().file("srv/one", b"1\n").file("srv/last", b"twelve bytes")
    image = Image(f"{registry}/{name}:1", busybox(), layer.without_end(padding_left_out))
    for engine in (sandbox, native):
        load(engine, image)
        engine.docker("push", image.tag)
        engine.docker("rmi", image.tag)
        engine.docker("pull", image.tag)
        assert run(engine, image.tag, "cat /srv/last /srv/one") == "twelve bytes1\n"
        assert SavedImage(engine.docker("save", image.tag).stdout).layers[1] == layer.tar
        engine.docker("rmi", image.tag)


def test_a_layer_of_zero_bytes_is_an_empty_layer(
    sandbox: Sandbox, native: Sandbox, registry: str, name: str
) -> None:
    """moby#18170: ``docker import - x </dev/null``, and an archive with an empty ``layer.tar``."""
    image = Image(f"{registry}/{name}:1", busybox(), Layer().without_end(), Layer().file("srv/one"))
    assert image.layers[1].tar == b""
    for engine in (sandbox, native):
        load(engine, image)
        assert inspect(engine, image.tag)["RootFS"]["Layers"] == image.diff_ids
        assert run(engine, image.tag, "ls /srv") == "one\n"
        assert SavedImage(engine.docker("save", image.tag).stdout).layers[1] == b""
        engine.docker("push", image.tag)
        engine.docker("rmi", image.tag)
        engine.docker("pull", image.tag)
        assert inspect(engine, image.tag)["RootFS"]["Layers"] == image.diff_ids
        engine.docker("rmi", image.tag)
        engine.docker("import", "-", f"{name}:1", input=b"")
        assert inspect(engine, f"{name}:1")["Size"] == 0
        assert inspect(engine, f"{name}:1")["RootFS"]["Layers"] == [image.diff_ids[1]]
        engine.docker("rmi", f"{name}:1")


def test_a_layer_that_ends_within_a_file_is_refused_as_it_is_by_the_engines_own_driver(
    sandbox: Sandbox, native: Sandbox, name: str
) -> None:
    layer = Layer().file("srv/one", b"1\n").file("srv/last", b"twelve bytes")
    image = Image(f"{name}:1", busybox(), layer.without_end(501))
    for engine in (sandbox, native):
        refused = engine.docker("load", input=image.archive(), check=False)
        assert refused.returncode != 0
        assert engine.docker("image", "inspect", image.tag, check=False).returncode != 0


def test_an_exported_container_is_its_whole_tree(make_sandbox: MakeSandbox) -> None:
    """In a sandbox of its own, for some engines never remove a container that was exported."""
    sandbox = make_sandbox()
    script = "echo new > /srv/new; rm /etc/motd"
    sandbox.docker("run", "--network", "none", "--name", "one", "box:1", "sh", "-ec", script)
    exported = sandbox.docker("export", "one").stdout
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        found = {entry.name: entry for entry in tar}
        content = tar.extractfile("srv/new")
        assert content is not None
        assert content.read() == b"new\n"
    assert "etc/motd" not in found
    assert found["srv/tree/a"].mode & 0o7777 == 0o640
    assert (found["srv/tree/a"].uid, found["srv/tree/a"].gid) == (1000, 1000)
    assert found["srv/tree/b2"].islnk() or found["srv/tree/b"].islnk()
    assert {"bin/busybox", "bin/sh", "srv/tree/link"} <= set(found)
