"""A layer from Create to Remove: Get and Put between, everything twice, and in odd orders."""

from __future__ import annotations

import os
import stat
from typing import Callable

import pytest

from manuka.toolkit.client import Client, ClientError, Refused
from manuka.toolkit.conformance.kit import Kit
from manuka.toolkit.conformance.layers import Layer, Layers, is_mounted, new_id
from manuka.toolkit.conformance.rules import (
    ENGINE_BUILDER,
    ENGINE_DRIVER,
    ENGINE_LAYERS,
    ENGINE_PROXY,
    GRAPHTEST,
    OVERLAY2,
    RUNTIME,
    choice,
    needed,
)
from manuka.toolkit.conformance.words import refused
from manuka.toolkit.layertar import LayerTar

Make = Callable[[Layers, "Layer | None"], Layer]


def _create(layers: Layers, parent: Layer | None) -> Layer:
    return layers.create(parent)


def _create_read_write(layers: Layers, parent: Layer | None) -> Layer:
    return layers.container(parent)


both = pytest.mark.parametrize(
    "make", [_create, _create_read_write], ids=["Create", "CreateReadWrite"]
)


# --- coming and going -----------------------------------------------------------------------------


@needed("A new layer on nothing is an empty folder, root's, with mode 0755.", GRAPHTEST)
@both
def check_a_new_layer_is_an_empty_folder(layers: Layers, make: Make) -> None:
    with make(layers, None).tree() as tree:
        status = os.lstat(str(tree))
        assert stat.S_ISDIR(status.st_mode), f"{tree} is no folder"
        mode = oct(stat.S_IMODE(status.st_mode))
        assert mode == "0o755", f"its mode is {mode}"
        assert (status.st_uid, status.st_gid) == (0, 0), f"its owner is {status.st_uid}"
        names = sorted(set(os.listdir(str(tree))) - {"lost+found"})
        assert names == [], f"it holds {names}"


@needed(
    "A layer exists from its Create on, and one that was never made does not.",
    ENGINE_DRIVER,
    guide="exists",
)
@both
def check_exists_tells_what_there_is(layers: Layers, make: Make) -> None:
    assert not layers.client.exists(new_id()), "a layer that was never made is said to exist"
    assert layers.client.exists(make(layers, None).id), "a new layer is said not to exist"


@needed("A layer that was removed does not exist any more.", ENGINE_DRIVER, guide="remove")
@both
def check_a_removed_layer_is_gone(layers: Layers, make: Make) -> None:
    layer = make(layers, None)
    layer.remove()
    assert not layers.client.exists(layer.id), "it is said to exist still"
    with refused("Get of a layer that was removed", Refused):
        layer.get()


@needed(
    "Remove of a layer that is not there is no error: the engine repeats it.",
    ENGINE_LAYERS,
    guide="remove",
)
def check_removing_twice_is_no_error(layers: Layers) -> None:
    layer = layers.image(LayerTar().file("f"))
    layer.remove()
    layer.remove()
    layers.client.remove(new_id())


@needed(
    "An id that was removed can be made again, and is empty then.", ENGINE_LAYERS, guide="remove"
)
@both
def check_an_id_can_be_used_again(layers: Layers, make: Make) -> None:
    layer = layers.image(LayerTar().file("old", b"old"))
    layer.remove()
    again = layers.create(layer_id=layer.id)
    assert again.names() == []
    again.apply(LayerTar().file("new", b"new"))
    assert again.names() == ["new"]


@needed("A second Create of the same id, refused or not, destroys nothing.", ENGINE_LAYERS)
def check_a_second_create_keeps_the_first(layers: Layers) -> None:
    layer = layers.image(LayerTar().file("f", b"kept"))
    try:
        layers.client.create(layer.id)
    except Refused:
        pass
    with layer.tree() as tree:
        assert (tree / "f").read_bytes() == b"kept"


@needed(
    "An id that was removed and made again shows nothing of its first life.",
    ENGINE_LAYERS,
    guide="remove",
)
@both
def check_an_id_made_again_is_another_layer(layers: Layers, make: Make) -> None:
    old, new = layers.image(LayerTar().file("old")), layers.image(LayerTar().file("new"))
    layer = layers.container(old)
    with layer.tree() as tree:
        (tree / "written").write_bytes(b"w")
    assert layer.names() == ["old", "written"]
    layer.remove()
    again = layers.known(new, layer.id)
    create = layers.client.create if make is _create else layers.client.create_read_write
    create(again.id, new.id)
    assert again.names() == ["new"]
    assert again.changes() == {}


@needed(
    "Remove is done when it is answered: the id can be made again at once.",
    ENGINE_LAYERS,
    guide="remove",
)
def check_a_removal_is_done_when_it_is_answered(layers: Layers) -> None:
    tar = LayerTar()
    for number in range(300):
        tar.file(f"d{number % 10}/f{number}", b"x")
    layer = layers.image(tar)
    before = layer.view(ignore=["folder times"])
    for _ in range(4):
        layer.remove()
        assert not layers.client.exists(layer.id), "after Remove it is said to exist"
        layers.client.create(layer.id)
        layer.apply(tar)
        assert layer.view(ignore=["folder times"]) == before


@choice("A second Create of the same id is refused.", ENGINE_DRIVER)
@both
def check_a_second_create_is_refused(layers: Layers, make: Make) -> None:
    layer = make(layers, None)
    with refused("a second Create of the same id", Refused):
        layers.client.create(layer.id)


@needed("An id of BuildKit, 25 small letters and digits, is as good as any.", ENGINE_BUILDER)
def check_ids_need_not_be_hexadecimal(layers: Layers) -> None:
    base = layers.create(layer_id="k" + new_id()[:24])
    child = layers.create(base, layer_id="z9" + new_id()[:23])
    child.apply(LayerTar().file("f"))
    assert child.names() == ["f"]


@needed("A container's layer lies on one whose id ends in -init.", ENGINE_LAYERS)
def check_a_container_lies_on_its_init_layer(layers: Layers) -> None:
    image = layers.image(LayerTar().file("from-image", b"i"))
    mount_id = new_id()
    client = layers.client
    init = layers.known(image, mount_id + "-init")
    client.ask("/GraphDriver.CreateReadWrite", ID=init.id, Parent=image.id, MountLabel="")
    with init.tree() as tree:
        (tree / ".dockerenv").write_bytes(b"")
        os.mkdir(str(tree / "dev"), 0o755)
    container = layers.known(init, mount_id)
    client.create_read_write(container.id, init.id)
    with container.tree() as tree:
        (tree / "written").write_bytes(b"w")
        assert sorted(os.listdir(str(tree))) == [".dockerenv", "dev", "from-image", "written"]
    container.remove()
    init.remove()
    assert image.names() == ["from-image"]


# --- what layers show -----------------------------------------------------------------------------


@needed("What was written between Get and Put is there at the next Get.", GRAPHTEST, guide="get")
@both
def check_what_was_written_stays(layers: Layers, make: Make) -> None:
    layer = make(layers, None)
    with layer.tree() as tree:
        os.mkdir(str(tree / "a subdir"))
        os.chown(str(tree / "a subdir"), 1, 2)
        os.chmod(str(tree / "a subdir"), 0o1705)
        (tree / "a file").write_bytes(b"some data")
        os.chmod(str(tree / "a file"), 0o4222)
    before = layer.view()
    assert set(before) == {"a subdir", "a file"}
    assert before["a subdir"]["mode"] == "0o1705"
    assert before["a subdir"]["owner"] == "1:2"
    assert before["a file"]["mode"] == "0o4222"
    assert layer.view() == before


@needed("A child shows what its parent holds.", GRAPHTEST)
@both
def check_a_child_shows_its_parent(layers: Layers, make: Make) -> None:
    base = layers.image(LayerTar().folder("d", uid=1, gid=2).file("d/f", b"of the parent"))
    assert make(layers, base).view() == base.view()


@needed("What is written into a child changes no parent, and no other child.", ENGINE_DRIVER)
@both
def check_a_child_changes_nobody_else(layers: Layers, make: Make) -> None:
    base = layers.image(LayerTar().file("changed", b"1").file("deleted", b"2").folder("d"))
    other, child = make(layers, base), make(layers, base)
    before = base.view()
    with child.tree() as tree:
        (tree / "changed").write_bytes(b"changed in the child")
        (tree / "deleted").unlink()
        (tree / "d" / "new").write_bytes(b"new")
    assert base.view() == before, "the parent changed"
    assert other.view() == before, "another child changed"
    assert child.names() == ["changed", "d", "d/new"]


@needed("A child that is removed takes nothing with it.", GRAPHTEST, guide="remove")
@both
def check_removing_a_child_leaves_the_parent(layers: Layers, make: Make) -> None:
    base = layers.image(LayerTar().file("f", b"kept"))
    child = make(layers, base)
    with child.tree() as tree:
        (tree / "f").write_bytes(b"other")
    before = base.view()
    child.remove()
    assert base.view() == before


@needed("A layer of Create can be written to until it has a child.", ENGINE_BUILDER)
def check_an_image_layer_can_be_written_to(layers: Layers) -> None:
    base = layers.image(LayerTar().file("below"))
    layer = layers.create(base)
    with layer.tree() as tree:
        (tree / "written").write_bytes(b"by BuildKit")
    child = layers.create(layer)
    with child.tree() as tree:
        assert (tree / "written").read_bytes() == b"by BuildKit"


@needed(
    "A layer with children can be read by Get, as docker save and push do.",
    ENGINE_LAYERS,
    guide="get",
)
def check_a_layer_with_children_can_be_read(layers: Layers) -> None:
    base = layers.image(LayerTar().file("below"))
    middle = layers.image(LayerTar().file("middle", b"m"), base)
    layers.container(layers.create(middle))
    with middle.tree() as tree:
        assert (tree / "middle").read_bytes() == b"m"
        assert sorted(os.listdir(str(tree))) == ["below", "middle"]


# --- Get and Put ----------------------------------------------------------------------------------


def _stack(layers: Layers) -> Layer:
    return layers.container(layers.image(LayerTar().file("f", b"content")))


@needed("Get names an absolute path, of a folder that the engine sees.", ENGINE_PROXY, guide="get")
def check_get_names_a_folder(layers: Layers) -> None:
    folder = _stack(layers).get()
    assert folder.is_absolute(), f"{folder} is no absolute path"
    assert folder.is_dir(), f"{folder} is no folder on this machine"


@needed(
    "Get names the directory itself: no link, no '.' or '..', and no slash at the end.",
    RUNTIME,
    guide="get",
)
@both
def check_get_names_a_plain_path(layers: Layers, make: Make) -> None:
    for layer in (make(layers, None), make(layers, layers.image(LayerTar().file("f")))):
        folder = layers.client.get(layer.id)
        layer.gets += 1
        assert os.path.isabs(folder), f"{folder} is no absolute path"
        plain = os.path.realpath(folder)
        assert folder == plain, f"it names {folder}, and the directory is {plain}"


@needed(
    "Get names the same path each time: engines refuse another one.", ENGINE_LAYERS, guide="get"
)
def check_the_path_is_always_the_same(layers: Layers) -> None:
    layer = _stack(layers)
    first, second = layer.get(), layer.get()
    layer.put()
    layer.put()
    third = layer.get()
    assert first == second == third


@needed("Get counts: the tree stays until there were as many Puts.", ENGINE_DRIVER, guide="get")
@pytest.mark.parametrize("times", [2, 5])
def check_the_tree_stays_until_the_last_put(layers: Layers, times: int) -> None:
    layer = _stack(layers)
    for _ in range(times):
        tree = layer.get()
    for done in range(1, times):
        layer.put()
        assert os.path.exists(str(tree / "f")), f"after {done} of {times} Puts it is gone"
        (tree / "written").write_bytes(b"%d" % done)
    layer.put()
    with layer.tree() as tree:
        assert (tree / "written").read_bytes() == b"%d" % (times - 1)


@needed(
    "A file that a container has open stays usable over further Get and Put.",
    ENGINE_LAYERS,
    guide="get",
)
def check_open_files_live_through_get_and_put(layers: Layers) -> None:
    layer = _stack(layers)
    with open(str(layer.get() / "f"), "r+b") as file:
        layer.get()
        layer.put()
        file.write(b"CONTENT")
    with layer.tree() as tree:
        assert (tree / "f").read_bytes() == b"CONTENT"


@needed(
    "Put without Get is no error, nor is Put of a layer that is not there.",
    ENGINE_DRIVER,
    guide="put",
)
def check_put_without_get_is_no_error(layers: Layers) -> None:
    layer = _stack(layers)
    layers.client.put(layer.id)
    layers.client.put(new_id())
    layer.get()
    layer.put()
    layers.client.put(layer.id)


@needed("A Put too many does not count against later Gets.", ENGINE_DRIVER, guide="put")
def check_surplus_puts_are_forgotten(layers: Layers) -> None:
    layer = _stack(layers)
    for _ in range(3):
        layers.client.put(layer.id)
    tree = layer.get()
    layer.get()
    layer.put()
    assert (tree / "f").exists(), "one Get was left, and the tree is gone"


@choice("After the last Put nothing is mounted any more.", OVERLAY2, guide="put")
def check_the_last_put_unmounts(layers: Layers) -> None:
    layer = _stack(layers)
    tree = layer.get()
    layer.get()
    layer.put()
    layer.put()
    assert not is_mounted(str(tree)), f"{tree} is a mount point still"


@choice("A layer that an engine left mounted can be removed.", OVERLAY2, guide="remove")
def check_a_mounted_layer_can_be_removed(layers: Layers) -> None:
    layer = _stack(layers)
    tree = layer.get()
    layer.remove()
    assert not is_mounted(str(tree)), f"{tree} is a mount point still"
    layer.gets = 0


@choice("Get of a base layer and of its child at once shows each.", OVERLAY2, guide="get")
def check_parent_and_child_can_be_mounted_at_once(layers: Layers) -> None:
    base = layers.image(LayerTar().file("a"))
    child = layers.image(LayerTar().file("b"), base)
    with base.tree() as below, child.tree() as above:
        assert os.listdir(str(below)) == ["a"]
        assert sorted(os.listdir(str(above))) == ["a", "b"]


# --- what is told of layers -----------------------------------------------------------------------


@needed(
    "GetMetadata is names and values, all strings, for docker inspect.",
    ENGINE_PROXY,
    guide="getmetadata",
)
def check_metadata_is_strings(layers: Layers) -> None:
    for layer in (layers.create(), _stack(layers)):
        for name, value in layers.client.metadata(layer.id).items():
            assert isinstance(value, str), f"{name} is {value!r}"


@choice("GetMetadata of a layer that is not there is refused.", OVERLAY2, guide="getmetadata")
def check_metadata_of_an_unknown_layer_is_refused(client: Client) -> None:
    with refused("GetMetadata of an unknown layer", Refused):
        client.metadata(new_id())


@needed(
    "Cleanup is answered without Err, and no layer is lost by it.", ENGINE_PROXY, guide="cleanup"
)
def check_cleanup_loses_nothing(kit: Kit, layers: Layers) -> None:
    _skip_on_an_engines_plugin(kit)
    layer = layers.image(LayerTar().file("f", b"kept"), layers.create())
    layers.client.cleanup()
    layers.client.cleanup()
    assert layer.names() == ["f"]


@choice("Cleanup unmounts what is mounted.", OVERLAY2, guide="cleanup")
def check_cleanup_unmounts(kit: Kit, layers: Layers) -> None:
    _skip_on_an_engines_plugin(kit)
    layer = _stack(layers)
    tree = layer.get()
    layers.client.cleanup()
    layer.gets = 0
    assert not is_mounted(str(tree)), f"{tree} is a mount point still"
    again = layer.get()
    assert (again / "f").exists(), "the layer cannot be used after Cleanup"


@choice("An option for a container that is not known is refused.", ENGINE_DRIVER)
def check_an_unknown_storage_opt_is_refused(layers: Layers) -> None:
    layer = layers.known()
    try:
        layers.client.ask(
            "/GraphDriver.CreateReadWrite", ID=layer.id, StorageOpt={"no.such.option": "1"}
        )
    except ClientError:
        assert not layers.client.exists(layer.id), "it was refused, and the layer is there"
        return
    raise AssertionError("CreateReadWrite took no.such.option=1")


def _skip_on_an_engines_plugin(kit: Kit) -> None:
    if not kit.settings.init:
        pytest.skip("the plugin serves an engine (--no-init)")
