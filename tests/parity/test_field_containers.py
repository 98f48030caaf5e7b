"""Situations from the field that a container makes: what ``docker diff`` and a commit make of them.

The first table has what has to come out the same on manuka and on overlay2: the tree, the changes,
and the committed layer with its entries in their order.  It is played at once, for speed.  Then
come containers of committed containers, and what is better.
"""

from __future__ import annotations

import os
import socket
from typing import Dict, List, Sequence, Tuple

import pytest

from .comparison import Pair
from .operations import Act, shell
from .sides import Member, Refused, Side, read_members
from .stacks import CAPABILITY, Stack, archive, layer
from .test_field import D, file, folder, link, symlink, whiteout
from .trees import Tree, differing, read_tree

BASE = layer(
    D,
    file(b"d/a"),
    file(b"d/b", 2),
    folder(b"d/sub"),
    file(b"d/sub/x"),
    folder(b"bin"),
    file(b"bin/x", 3, mode=0o755),
    file(b"k", uid=5, mode=0o4755),
    file(b"one"),
    link(b"two", b"one"),
    symlink(b"l", b"k"),
    folder(b"tmp", 0o1777),
)
GONE = layer(whiteout(b"one"), whiteout(b"d/sub"))


def bound_socket(root: str) -> None:
    # A socket's path may be no longer than 107 bytes, but there is a short way to any folder.
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{top}/d/socket")
    finally:
        os.close(top)


def capability_of_a_namespace(root: str) -> None:
    """Revision 3: as root of a user namespace sets one, with that root's id behind it."""
    value = (3 << 24 | 1).to_bytes(4, "little") + CAPABILITY[4:] + (300_000).to_bytes(4, "little")
    os.setxattr(f"{root}/k", "security.capability", value)


def attribute(root: str) -> None:
    os.setxattr(f"{root}/k", "user.demo", b"1")
    os.setxattr(f"{root}/d", "user.demo", b"1")


SAME: Dict[str, Act] = {
    "nothing": shell("true"),
    "a file deleted": shell("rm d/a"),
    "a file deleted and made anew": shell("rm k; echo new >k"),
    "a folder deleted": shell("rm -r d"),
    "a folder deleted and made anew in one step": shell("rm -r d; mkdir d; echo n >d/n"),
    "a folder made anew with another owner and mode": shell(
        "rm -r d; mkdir d; chown 9:9 d; chmod 750 d"
    ),
    "a folder made anew in one made anew": shell("rm -r d; mkdir -p d/sub; echo y >d/sub/y"),
    "a folder moved": shell("mv d e"),
    "a folder moved into itself made anew": shell("mv d e; mkdir d; mv e d/e"),
    "a file moved and given to another": shell("mv bin/x nx; chown 7:8 nx; chmod 640 nx"),
    "a file moved over another": shell("mv -f k d/a"),
    "a file moved into a new folder, both removed": shell(
        "mkdir foo; mv bin/x foo; rm foo/x; rmdir foo"
    ),
    "a new folder": shell("mkdir nd; echo f >nd/f"),
    "new folders in a row": shell("mkdir -p n/e/s/t"),
    "a file made and removed again": shell("touch tmp/q d/q; rm tmp/q d/q"),
    "a file's owner changed": shell("chown 77:88 d/a"),
    "a set-id file's owner changed": shell("chown 77 k"),
    "a folder's mode changed": shell("chmod 700 d"),
    "a folder replaced by a file": shell("rm -r d; echo x >d"),
    "a folder replaced by a link": shell("rm -r d; ln -s bin d"),
    "a file replaced by a folder": shell("rm k; mkdir k; echo f >k/f"),
    "a file replaced by a link": shell("rm k; ln -s d k"),
    "a link replaced by a file": shell("rm l; echo l >l"),
    "a file replaced by a pipe": shell("rm k; mkfifo k"),
    "a further name for a lower file": shell("ln d/a d/l"),
    "a further name, and the first one gone": shell("ln d/a d/l; rm d/a"),
    "one of two names written to": shell("echo more >>one"),
    "one of two names removed": shell("rm one"),
    "new files of several names": shell("echo x >d/n; ln d/n m; ln d/n tmp/o"),
    "a new link of several names": shell("ln -s a d/s; ln d/s m"),
    "a pipe and a device": shell("mkfifo p; mknod c c 240 3; mknod b b 240 4"),
    "a file that is a hole": shell("truncate -s 3M h; truncate -s 5000000 d/h"),
    "names of odd bytes": shell(r"""touch -- "$(printf 'caf\351')" "$(printf 'a\nb')" ' ' -rf"""),
    "names that begin like a whiteout": shell("touch .wh .whx d/..wh.x; mkdir .wh-.x"),
    "long names": shell('n=$(printf %0250d 1); mkdir "$n"; echo x >"$n/$n"; ln -s "$n$n$n" s'),
    "an attribute of a user": Act("setfattr user.demo", attribute),
    "a socket": Act("bind d/socket", bound_socket),
}
ABOVE_WHITEOUTS: Dict[str, Act] = {
    "a file in the place of one deleted below": shell("echo x >one"),
    "a folder in the place of one deleted below": shell("mkdir d/sub; echo y >d/sub/y"),
    "a file in the place of a folder deleted below": shell("echo x >d/sub"),
    "a folder deleted that has whiteouts below": shell("rm -r d"),
    "a folder made anew that has whiteouts below": shell("rm -r d; mkdir d"),
}
SITUATIONS = {**SAME, **ABOVE_WHITEOUTS}


@pytest.fixture(scope="session")
def differences(pair: Pair) -> Dict[str, List[str]]:
    """For each situation what is not as on overlay2."""
    cases = [(Stack((BASE,)), (act,)) for act in SAME.values()]
    cases += [(Stack((BASE, GONE)), (act,)) for act in ABOVE_WHITEOUTS.values()]
    return dict(zip(SITUATIONS, pair.differences(cases)))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_a_container_does_comes_out_as_on_overlay2(
    differences: Dict[str, List[str]], situation: str
) -> None:
    assert differences[situation] == []


# --- containers of committed containers ----


def successive(
    side: Side, name: str, scripts: Sequence[str]
) -> Tuple[Tree, List[List[Tuple[bytes, Member]]]]:
    """What the last of several containers shows, each made of the one before; their layers."""
    side.load(archive({f"{name}:0": Stack((BASE,))}))
    for number, script in enumerate(scripts):
        container = side.create(f"{name}:{number}")
        with side.mounted(container) as root:
            shell(script).do(root)
        side.commit(container, f"{name}:{number + 1}")
    last = f"{name}:{len(scripts)}"
    with side.mounted(side.create(last)) as root:
        tree = read_tree(root)
    return tree, [read_members([tar]) for tar in side.save([last])[last][1:]]


SUCCESSIVE = {
    "moved, then given to another, then closed": [
        "mv d/a d/c",
        "chown 7 d/c",
        "chmod 600 d/c; chgrp 8 d/c",
    ],
    "moved into a new folder, removed, and the folder too": [
        "mkdir foo; mv bin/x foo",
        "rm foo/x",
        "rmdir foo",
    ],
    "rewritten within a second, of one size": [f"printf v{number} >k" for number in range(5)],
    "deleted, made anew, deleted": ["rm -r d", "mkdir d; echo x >d/x", "rm -r d; mkdir d"],
    "a set-id program that others write over": ["cp -p k k2", "chown 9 k2; chmod 4711 k2", "rm k"],
}


@pytest.mark.one_engine
@pytest.mark.parametrize("situation", SUCCESSIVE)
def test_containers_of_committed_containers_are_as_on_overlay2(pair: Pair, situation: str) -> None:
    name = f"chain{list(SUCCESSIVE).index(situation)}"
    native_tree, native_layers = successive(pair.left, name, SUCCESSIVE[situation])
    tree, layers = successive(pair.right, name, SUCCESSIVE[situation])
    assert differing(native_tree, tree, "tree") == []
    assert layers == native_layers


def test_the_fifth_version_within_a_second_is_the_one_that_is_seen(pair: Pair) -> None:
    _, layers = successive(
        pair.right, "fifth", SUCCESSIVE["rewritten within a second, of one size"]
    )
    contents = {dict(members)[b"k"].content for members in layers}
    assert len(contents) == 5


# --- better ----


@pytest.mark.one_engine
def test_a_capability_of_a_namespace_is_packed_without_its_root(pair: Pair) -> None:
    """As later engines do it; earlier ones pack it as it is, and it holds nowhere else."""
    case = (Stack((BASE,)), (Act("setcap in a namespace", capability_of_a_namespace),))
    [(_, manuka)] = pair.play([case], [case])
    assert manuka.committed[b"k"].xattrs == (
        ("security.capability", (2 << 24 | 1).to_bytes(4, "little") + CAPABILITY[4:]),
    )


@pytest.mark.one_engine
def test_a_file_that_bears_a_whiteouts_name_makes_a_commit_fail_with_its_name(pair: Pair) -> None:
    """The engine's own driver commits it, as the deletion of another; the image is a broken one."""
    said = {}
    for side in (pair.left, pair.right):
        side.load(archive({"whiteout:0": Stack((BASE,))}))
        container = side.create("whiteout:0")
        with side.mounted(container) as root:
            shell("touch tmp/.wh.foo").do(root)
        try:
            side.commit(container, "whiteout:1")
            side.save(["whiteout:1"])
        except Refused as error:
            said[side] = str(error)
        else:
            said[side] = ""
    assert "/tmp/.wh.foo: a layer's tar cannot hold a file of this name" in said[pair.right]
    assert "rename it" in said[pair.right]
    assert said[pair.left] == "" or "no such file" in said[pair.left]


@pytest.mark.one_engine
def test_docker_diff_looks_into_no_folder_that_was_not_touched(pair: Pair, workshop: str) -> None:
    """The engine's own driver walks through the whole image, for a container without a change."""
    image = layer(*(file(b"many/%d/f" % number) for number in range(300)))
    side = pair.right
    side.load(archive({"untouched:0": Stack((image, layer()))}))
    container = side.create("untouched:0")
    about = side.call("GET", f"/containers/{container}/json")["GraphDriver"]["Data"]
    lowest = side.sandbox.inside(about["LowerDir"].split(":")[-1])
    assert os.path.isdir(f"{lowest}/many")
    times = {}
    for number in range(300):
        path = f"{lowest}/many/{number}"
        os.utime(path, ns=(1, os.stat(path).st_mtime_ns))  # so old that a reader makes it newer
        times[path] = os.stat(path).st_atime_ns
    assert side.changes(container) == []
    assert {path: os.stat(path).st_atime_ns for path in times} == times
    os.listdir(path)
    assert os.stat(path).st_atime_ns != times[path], "this disk notes when a folder is read"
