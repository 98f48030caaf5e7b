"""What Create promises: a child shows all that its parent holds, of every type of file.

Each check looks at one property of the same tree, so that its name says what a driver loses.  A
copy, a clone and a snapshot lose different ones.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Tuple

import pytest

from manuka.toolkit.conformance import specimen
from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.rules import (
    ENGINE_BUILDER,
    ENGINE_DRIVER,
    GRAPHTEST,
    IMAGES,
    choice,
    needed,
)
from manuka.toolkit.layertar import LayerTar
from manuka.toolkit.snapshot import Snapshot, snapshot

_SECOND = 10**9
_GIB = 1 << 30

Make = Callable[[Layers, Layer], Layer]
Parent = Tuple[Layer, Snapshot]


def _written(layers: Layers) -> Parent:
    layer = layers.create()
    with layer.tree() as tree:
        specimen.write(tree)
        return layer, snapshot(tree)


def _sent(layers: Layers) -> Parent:
    layer = layers.image(specimen.tar())
    return layer, layer.view()


each_parent = pytest.mark.parametrize("parent", [_written, _sent], ids=["written", "sent"])
each_call = pytest.mark.parametrize(
    "make", [Layers.create, Layers.container], ids=["Create", "CreateReadWrite"]
)


def _fields(view: Snapshot, *names: str) -> Dict[str, Dict[str, Any]]:
    """Of each file that has them, these properties."""
    chosen = {
        path: {name: record[name] for name in names if name in record}
        for path, record in view.items()
    }
    return {path: record for path, record in chosen.items() if record}


def _found(make: Make, layers: Layers, parent: Callable[[Layers], Parent], *names: str) -> Any:
    """The properties of the files in a child, and in its parent."""
    layer, expected = parent(layers)
    return _fields(make(layers, layer).view(), *names), _fields(expected, *names)


@needed(
    "A child has every file and directory of its parent, whatever its name and type.", GRAPHTEST
)
@each_call
@each_parent
def check_a_child_has_every_name(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "type")
    assert found == expected


@needed("A child's files have the content of the parent's.", GRAPHTEST)
@each_call
@each_parent
def check_a_child_has_the_content(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "size", "content")
    assert found == expected


@needed("Hard links of a parent are one file in the child, too.", IMAGES)
@each_call
@each_parent
def check_a_child_keeps_hard_links(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "links")
    assert found == expected


@needed("Symbolic links of a parent are links in the child, with the same targets.", IMAGES)
@each_call
@each_parent
def check_a_child_keeps_symbolic_links(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "target")
    assert found == expected


@needed("A child has its parent's permissions, with the set-id and sticky bits.", GRAPHTEST)
@each_call
@each_parent
def check_a_child_keeps_permissions(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "mode")
    assert found == expected


@needed("A child has its parent's owners, of links and special files, too.", GRAPHTEST)
@each_call
@each_parent
def check_a_child_keeps_owners(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "owner")
    assert found == expected


@needed("A child has its parent's modification times, to the second.", ENGINE_DRIVER)
@each_call
@each_parent
def check_a_child_keeps_times(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "mtime_ns")
    for path in expected:
        was, now = expected[path]["mtime_ns"], found.get(path, {}).get("mtime_ns", 0)
        assert now // _SECOND == was // _SECOND, f"{path} is {(now - was) / _SECOND:.0f} s off"


@choice("A child has its parent's modification times, to the nanosecond.", ENGINE_DRIVER)
@each_call
def check_a_child_keeps_times_to_the_nanosecond(layers: Layers, make: Make) -> None:
    found, expected = _found(make, layers, _written, "mtime_ns")
    assert found == expected


@needed("A child's devices have the numbers of the parent's.", IMAGES)
@each_call
@each_parent
def check_a_child_keeps_device_numbers(layers: Layers, make: Make, parent: Any) -> None:
    found, expected = _found(make, layers, parent, "device")
    if not expected:
        pytest.skip("devices cannot be made here")
    assert found == expected


def _attributes(view: Snapshot, prefix: str) -> Dict[str, Any]:
    found = {}
    for path, record in view.items():
        for name, value in record.get("xattrs", {}).items():
            if name.startswith(prefix):
                found[f"{path}, {name}"] = value
    return found


def _keeps_attributes(layers: Layers, make: Make, prefix: str) -> None:
    layer, view = _written(layers)
    expected = _attributes(view, prefix)
    if not expected:
        pytest.skip(f"the driver's file system has no {prefix} attributes")
    found = _attributes(make(layers, layer).view(), prefix)
    assert found == expected


@needed("A child has the user attributes of its parent's files and directories.", IMAGES)
@each_call
def check_a_child_keeps_user_attributes(layers: Layers, make: Make) -> None:
    _keeps_attributes(layers, make, "user.")


@needed("A child has its parent's file capabilities: ping works without set-id.", IMAGES)
@each_call
def check_a_child_keeps_capabilities(layers: Layers, make: Make) -> None:
    _keeps_attributes(layers, make, "security.capability")


@needed("A child has its parent's access control lists, also those for new files.", ENGINE_DRIVER)
@each_call
def check_a_child_keeps_access_control_lists(layers: Layers, make: Make) -> None:
    _keeps_attributes(layers, make, "system.posix_acl_")


@needed("A child has what each layer below it did, not only the lowest.", GRAPHTEST)
@each_call
def check_a_child_has_all_generations(layers: Layers, make: Make) -> None:
    layer, _ = _written(layers)
    for generation in range(3):
        layer = layers.container(layer)
        with layer.tree() as tree:
            (tree / f"generation-{generation}").write_bytes(b"%d" % generation)
            (tree / f"size-{(0, 1, 4095)[generation]}").unlink()
            os.chmod(str(tree / "size-70000"), 0o600 + generation)
            view = snapshot(tree)
    found = make(layers, layer).view()
    assert _fields(found, "type", "mode", "content", "links") == _fields(
        view, "type", "mode", "content", "links"
    )


@needed(
    "A child has what was written to its parent until then, also between two Gets.", ENGINE_BUILDER
)
@each_call
def check_a_child_has_the_last_writes(layers: Layers, make: Make) -> None:
    base = layers.image(LayerTar().file("f", b"first").file("gone"))
    for turn in (b"second", b"third"):
        with base.tree() as tree:
            (tree / "f").write_bytes(turn)
            (tree / "new").write_bytes(turn)
    with base.tree() as tree:
        (tree / "gone").unlink()
    with make(layers, base).tree() as tree:
        found = {path: (tree / path).read_bytes() for path in sorted(os.listdir(str(tree)))}
    assert found == {"f": b"third", "new": b"third"}


@needed("A file whose permissions a child changes keeps everything else.", ENGINE_DRIVER)
@each_call
def check_a_change_of_permissions_keeps_the_rest(layers: Layers, make: Make) -> None:
    base, before = _written(layers)
    names = [path for path in before if path.startswith(("size-", "attributes/", "owners/f"))]
    child = make(layers, base)
    with child.tree() as tree:
        for path in names:
            os.chmod(str(tree / path), int(before[path]["mode"], 8) ^ 0o100)
    after = child.view()
    ignored = ("mode", "mtime_ns")
    for path in names:
        was = {key: value for key, value in before[path].items() if key not in ignored}
        now = {key: value for key, value in after.get(path, {}).items() if key not in ignored}
        was.get("xattrs", {}).pop("system.posix_acl_access", None)  # chmod changes its mask
        now.get("xattrs", {}).pop("system.posix_acl_access", None)
        assert {path: now} == {path: was}


# --- holes and sizes ------------------------------------------------------------------------------


def _room(layer: Layer, name: str) -> int:
    with layer.tree() as tree:
        return os.lstat(str(tree / name)).st_blocks * 512


def _with_hole(layers: Layers, size: int, *marks: int) -> Layer:
    base = layers.create()
    with base.tree() as tree, open(str(tree / "sparse"), "wb") as file:
        for at in marks:
            file.seek(at)
            file.write(b"mark at %020d" % at)
        file.truncate(size)
    return base


@choice("Holes of a parent's file take no room in the child.", ENGINE_DRIVER)
@each_call
def check_a_child_keeps_holes(layers: Layers, make: Make) -> None:
    room = _room(make(layers, _with_hole(layers, 64 << 20, 0, 32 << 20)), "sparse")
    assert room < 8 << 20, f"a file of 64 MiB with 42 bytes in it takes {room} bytes"


@needed("A file of more than 4 GiB is whole in the child.", ENGINE_DRIVER)
@each_call
def check_a_child_has_huge_files(layers: Layers, make: Make) -> None:
    if _room(make(layers, _with_hole(layers, 64 << 20)), "sparse") > 8 << 20:
        pytest.skip("the driver fills holes: a huge file would take 6 GiB")
    marks = (0, 2 * _GIB - 8, 4 * _GIB + 4096, 6 * _GIB - 28)
    base = _with_hole(layers, 6 * _GIB, *marks)
    child = make(layers, base)
    for layer in (base, child):
        with layer.tree() as tree, open(str(tree / "sparse"), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            assert size == 6 * _GIB, f"it has {size} bytes, not {6 * _GIB}"
            for at in marks:
                file.seek(at)
                found = file.read(28)
                assert found == b"mark at %020d" % at, f"at {at} it has {found!r}"
