"""manuka.layers.apply: what the entries of a tar become, in both of its ways."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manuka.layers.apply import ApplyError, apply_layer, apply_overlay
from manuka.layers.idmap import IDENTITY
from manuka.layers.size import tree_size
from manuka.layers.tar import TarError
from manuka.linux.tree import remove_tree
from tests.layertar import MTIME, LayerTar
from tests.snapshot import snapshot
from tests.unit.mounts import mounted, needs_root
from tests.unit.stacks import REMAPPED

pytestmark = needs_root

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
SECOND = 10**9


@pytest.fixture(params=["merging", "overlaying"])
def unpack(request, tmp_path):
    """Unpack a tar into the folder `tree`, which is the only layer, in either way."""
    tree = tmp_path / "tree"
    tree.mkdir()

    def run(tar, id_maps=IDENTITY):
        stream = tar if hasattr(tar, "readinto") else tar.stream()
        if request.param == "merging":
            return apply_layer(stream, str(tree), id_maps)
        return apply_overlay(stream, str(tree), list, id_maps)

    return run


@pytest.fixture
def tree(tmp_path):
    return tmp_path / "tree"


# --- types, modes, owners ------------------------------------------------------------------------


def test_every_type_of_file_is_unpacked(unpack, tree):
    unpack(
        LayerTar()
        .folder("d", mode=0o750, uid=1, gid=2)
        .file("d/f", b"content", mode=0o640, uid=3, gid=4)
        .symlink("d/s", "f", uid=5, gid=6)
        .hardlink("d/h", "d/f", mode=0o640, uid=3, gid=4)
        .device("d/c", 1, 3, mode=0o666, uid=7)
        .device("d/b", 7, 300, block=True, gid=8)
        .fifo("d/p", mode=0o622)
    )
    content = {"content": "ed7002b439e9", "size": 7, "links": ["d/f", "d/h"]}
    file = {"type": "file", "mode": "0o640", "owner": "3:4", **content}
    assert snapshot(tree, ignore=["mtime_ns"]) == {
        "d": {"type": "folder", "mode": "0o750", "owner": "1:2"},
        "d/f": file,
        "d/h": file,
        "d/s": {"type": "symlink", "mode": "0o777", "owner": "5:6", "target": "f"},
        "d/c": {"type": "character device", "mode": "0o666", "owner": "7:0", "device": "1:3"},
        "d/b": {"type": "block device", "mode": "0o600", "owner": "0:8", "device": "7:300"},
        "d/p": {"type": "fifo", "mode": "0o622", "owner": "0:0"},
    }
    assert {record["mtime_ns"] for record in snapshot(tree).values()} == {MTIME}


@pytest.mark.parametrize("mode", [0o0, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777, 0o4000])
@pytest.mark.parametrize("owner", [0, 1000])
def test_set_id_bits_survive_the_change_of_owner(unpack, tree, mode, owner):
    unpack(
        LayerTar()
        .file("f", b"x", mode=mode, uid=owner, gid=owner)
        .folder("d", mode=mode, uid=owner, gid=owner)
    )
    for name in ("f", "d"):
        status = os.lstat(tree / name)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, owner, owner)


def test_modes_do_not_depend_on_the_umask(unpack, tree):
    before = os.umask(0o077)
    try:
        unpack(
            LayerTar()
            .folder("d", mode=0o777)
            .file("d/f", mode=0o666)
            .fifo("d/p", mode=0o666)
            .file("implied/f", mode=0o666)
        )
    finally:
        os.umask(before)
    modes = {path: record["mode"] for path, record in snapshot(tree).items()}
    assert modes == {
        "d": "0o777",
        "d/f": "0o666",
        "d/p": "0o666",
        "implied": "0o755",
        "implied/f": "0o666",
    }


def test_files_in_a_setgid_folder_have_the_group_that_the_tar_says(unpack, tree):
    unpack(
        LayerTar()
        .folder("d", mode=0o2775, gid=50)
        .file("d/f")
        .folder("d/sub")
        .symlink("d/s", "f")
        .fifo("d/p")
        .file("d/told", gid=50)
        .file("d/new/f")
    )
    seen = {path: (record["mode"], record["owner"]) for path, record in snapshot(tree).items()}
    assert seen == {
        "d": ("0o2775", "0:50"),
        "d/f": ("0o644", "0:0"),
        "d/sub": ("0o755", "0:0"),
        "d/s": ("0o777", "0:0"),
        "d/p": ("0o644", "0:0"),
        "d/told": ("0o644", "0:50"),
        "d/new": ("0o2755", "0:0"),  # without an entry: as mkdir and the engine make it
        "d/new/f": ("0o644", "0:0"),
    }


def acl(*entries):
    """An access list as the kernel keeps it: (tag, permissions, id) each."""
    nobody = 0xFFFFFFFF
    rows = (struct.pack("<HHI", tag, bits, nobody if i is None else i) for tag, bits, i in entries)
    return struct.pack("<I", 2) + b"".join(rows)


def test_a_folders_default_access_list_does_not_reach_what_the_tar_puts_into_it(unpack, tree):
    default = acl((1, 7, None), (2, 7, 1000), (4, 0, None), (16, 7, None), (32, 0, None))
    unpack(
        LayerTar()
        .folder("d", xattrs={"system.posix_acl_default": default})
        .file("d/f", mode=0o640)
        .folder("d/sub", mode=0o750)
        .fifo("d/p", mode=0o640)
        .file("d/implied/f", mode=0o640)
    )
    found = snapshot(tree, ignore=["mtime_ns"])
    assert found["d"]["xattrs"] == {"system.posix_acl_default": default}
    assert [path for path in found if "xattrs" in found[path]] == ["d"]
    assert {path: record["mode"] for path, record in found.items()} == {
        "d": "0o755",
        "d/f": "0o640",
        "d/sub": "0o750",
        "d/p": "0o640",
        "d/implied": "0o755",
        "d/implied/f": "0o640",
    }


def test_the_root_stays_as_the_driver_made_it(unpack, tree):
    os.chmod(tree, 0o755)
    for name in ("./", "/", ".", "", "x/.."):
        unpack(LayerTar().folder(name, mode=0o555, uid=7, mtime_ns=0))
    status = os.stat(tree)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 0)
    assert os.listdir(tree) == []


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./a", "a"),
        ("/a", "a"),
        ("//a//b/", "a/b"),
        ("a/./b", "a/b"),
        ("a/../b", "b"),
        ("../a", "a"),
        ("../../../a", "a"),
        ("a/b/../../../../c", "c"),
        ("...", "..."),
        ("..a/.b", "..a/.b"),
        ("a/...", "a/..."),
    ],
)
def test_a_name_is_cleaned_like_a_path_below_the_root(unpack, tree, tmp_path, name, path):
    unpack(LayerTar().file(name, b"x"))
    assert (tree / path).read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["tree"]


@pytest.mark.parametrize(
    "name", [b"caf\xe9", b"\xff\xfe", "ü€".encode(), b"new\nline", b" ", b"\\"]
)
def test_the_bytes_of_a_name_survive(unpack, tree, name):
    unpack(LayerTar().file(b"d/" + name, b"x").symlink(b"s" + name, name))
    assert os.listdir(os.fsencode(str(tree / "d"))) == [name]
    assert os.readlink(os.fsencode(str(tree)) + b"/s" + name) == name


def test_long_names_are_taken_up_to_what_a_disk_can_hold(unpack, tree):
    unpack(
        LayerTar().file("a" * 255, b"x").file("b" * 250 + "/" + "c" * 250).symlink("s", "t" * 4000)
    )
    assert (tree / ("a" * 255)).read_bytes() == b"x"
    assert len(os.readlink(tree / "s")) == 4000


@pytest.mark.parametrize(
    ("tar", "text"),
    [
        (LayerTar().file("a" * 256), f"'{'a' * 256}': File name too long"),
        (LayerTar().symlink("s", "t" * 5000), "'s': File name too long"),
        (LayerTar().symlink("s", ""), "'s': No such file or directory"),
        (LayerTar().file("f").file("f/x"), "'f/x': 'f' is not a directory in this layer"),
        (LayerTar().file("f").hardlink("f", "f"), "'f': a hard link to itself cannot be made"),
        (LayerTar().hardlink("h", "/no/f"), "'h': it is a hard link to '/no/f', which neither"),
        (LayerTar().folder("d").hardlink("h", "d"), "'h': Operation not permitted"),
        (LayerTar().file(".wh."), "'.wh.': a whiteout has to name what it hides"),
        (LayerTar().file("d/.wh."), "'d/.wh.': a whiteout has to name what it hides"),
        (LayerTar().file(".wh..."), "'.wh...': a whiteout has to name what it hides"),
        (
            LayerTar().symlink("l", "l").file("l/f"),
            "'l/f': the link 'l' on its path leads through too many others",
        ),
    ],
)
def test_what_cannot_be_made_is_an_error_that_names_the_entry(unpack, tar, text):
    with pytest.raises(ApplyError) as caught:
        unpack(tar)
    assert str(caught.value).startswith(text)


def test_folders_without_an_entry_are_made(unpack, tree):
    unpack(
        LayerTar().file("a/b/c", b"x").hardlink("x/y/h", "a/b/c").symlink("p/q", "r").fifo("m/n")
    )
    found = snapshot(tree, ignore=["mtime_ns"])
    for path in ("a", "a/b", "x", "x/y", "p", "m"):
        assert found[path] == {"type": "folder", "mode": "0o755", "owner": "0:0"}


# --- the later entry wins ------------------------------------------------------------------------

KINDS = {
    "file": lambda tar, name: tar.file(name, name.encode(), mode=0o600),
    "folder": lambda tar, name: tar.folder(name, mode=0o711).file(f"{name}/f"),
    "symlink": lambda tar, name: tar.symlink(name, "nowhere"),
    "symlink to a folder": lambda tar, name: tar.folder("t").symlink(name, "t"),
    "hard link": lambda tar, name: tar.file("t", b"t").hardlink(name, "t"),
    "device": lambda tar, name: tar.device(name, 1, 3),
    "fifo": lambda tar, name: tar.fifo(name),
}


@pytest.mark.parametrize("later", KINDS)
@pytest.mark.parametrize("earlier", KINDS)
def test_a_name_may_come_twice_and_the_later_entry_wins(unpack, tree, tmp_path, earlier, later):
    applied = unpack(KINDS[later](KINDS[earlier](LayerTar(), "x").file("between/f"), "x"))
    alone = tmp_path / "alone"
    alone.mkdir()
    apply_layer(KINDS[later](LayerTar(), "x").stream(), str(alone))
    found, expected = snapshot(tree), snapshot(alone)
    ignored = [path for path in found if path.split("/")[0] in ("between", "t")]
    for path in ignored:
        del found[path]
        expected.pop(path, None)
    if "hard link" not in (earlier, later):
        assert found == expected
    assert found["x"]["type"] == expected["x"]["type"]
    assert not applied.exact or applied.content_size == tree_size(str(tree))


def test_a_folder_that_comes_twice_keeps_what_is_in_it(unpack, tree):
    unpack(LayerTar().folder("d").file("d/f", b"x").folder("d", mode=0o700, uid=9))
    assert (tree / "d" / "f").read_bytes() == b"x"
    status = os.stat(tree / "d")
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, 9)


def test_a_file_that_is_replaced_leaves_its_other_names_alone(unpack, tree):
    unpack(LayerTar().file("a", b"old").hardlink("b", "a").file("a", b"new"))
    assert ((tree / "a").read_bytes(), (tree / "b").read_bytes()) == (b"new", b"old")


# --- hard links ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["d/f", "/d/f", "./d/f", "../d/f", "d/../d/f"])
def test_a_hard_link_leads_to_the_file_below_the_root(unpack, tree, target):
    unpack(LayerTar().file("d/f", b"x").hardlink("h", target))
    assert os.path.samefile(tree / "h", tree / "d" / "f")


def test_a_hard_link_to_a_symlink_is_one_to_the_link_itself(unpack, tree):
    unpack(LayerTar().file("f").symlink("s", "f").hardlink("h", "s"))
    assert os.readlink(tree / "h") == "f"
    assert os.lstat(tree / "h").st_ino == os.lstat(tree / "s").st_ino


def test_the_last_name_of_a_file_sets_its_time_and_mode(unpack, tree):
    unpack(
        LayerTar()
        .file("f", b"x", mode=0o600, mtime_ns=1 * SECOND)
        .hardlink("g", "f", mode=0o640, mtime_ns=2 * SECOND)
        .hardlink("h", "g", mode=0o755, mtime_ns=3 * SECOND)
    )
    status = os.stat(tree / "f")
    assert (status.st_nlink, status.st_mtime, stat.S_IMODE(status.st_mode)) == (3, 3, 0o755)


def test_a_further_name_does_not_take_a_capability_away(unpack, tree):
    xattrs = {"security.capability": CAPABILITY}
    unpack(LayerTar().file("f", b"x", uid=5, mode=0o4755, xattrs=xattrs).hardlink("h", "f", uid=5))
    assert os.getxattr(tree / "f", "security.capability") == CAPABILITY


def test_a_file_with_several_names_counts_once(unpack, tree):
    applied = unpack(LayerTar().file("f", bytes(1000)).hardlink("g", "f").hardlink("h", "f"))
    assert applied.content_size == tree_size(str(tree)) == 1000


# --- attributes ----------------------------------------------------------------------------------


def test_attributes_are_kept_behind_the_change_of_owner(unpack, tree):
    xattrs = {"security.capability": CAPABILITY, "user.bytes": b"\x00\xff\n=", "trusted.t": b""}
    unpack(
        LayerTar().file("f", b"x", uid=1000, mode=0o755, xattrs=xattrs).folder("d", xattrs=xattrs)
    )
    assert snapshot(tree)["f"]["xattrs"] == xattrs
    assert snapshot(tree)["d"]["xattrs"] == xattrs


@pytest.mark.parametrize(
    "record", ["opaque", "origin", "redirect", "metacopy", "impure", "whiteout"]
)
@pytest.mark.parametrize("prefix", ["trusted.overlay.", "user.overlay."])
def test_an_image_cannot_plant_an_overlays_own_records(unpack, tree, prefix, record):
    xattrs = {prefix + record: b"y"}
    unpack(
        LayerTar()
        .folder("d", xattrs=xattrs)
        .file("f", xattrs=xattrs)
        .hardlink("h", "f", xattrs=xattrs)
    )
    assert [path for path, found in snapshot(tree).items() if "xattrs" in found] == []


def test_an_attribute_that_the_disk_refuses_is_left_out_and_logged_once(unpack, tree, caplog):
    xattrs = {"user.x": b"1", "trusted.kept": b"2"}
    unpack(LayerTar().symlink("s", "t", xattrs=xattrs).symlink("s2", "t", xattrs=xattrs).file("f"))
    assert snapshot(tree)["s"]["xattrs"] == {"trusted.kept": b"2"}
    assert caplog.text.count("attribute 'user.x' is not kept") == 1


def test_an_attribute_that_cannot_be_made_is_named_and_not_its_whole_value(unpack):
    with pytest.raises(ApplyError, match=r"'f': attribute 'user.n' is not kept: "):
        unpack(LayerTar().file("f", xattrs={"user.n": b"x" * 100_000}))


def test_one_tar_cannot_fill_the_log(unpack, caplog):
    xattrs = {f"user.{number}": b"" for number in range(500)}
    unpack(LayerTar().symlink("s", "t", xattrs=xattrs))
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "what else this tar has that is not kept is not logged"


def test_a_name_in_an_error_is_cut_when_it_is_absurdly_long(unpack):
    with pytest.raises(ApplyError) as caught:
        unpack(LayerTar().file("n" * 100_000))
    assert len(str(caught.value)) < 400


# --- times ---------------------------------------------------------------------------------------


def test_a_folders_time_is_not_that_of_what_comes_into_it(unpack, tree):
    unpack(
        LayerTar()
        .folder("d", mtime_ns=1 * SECOND)
        .folder("d/sub", mtime_ns=2 * SECOND)
        .file("d/sub/f", b"x")
        .file("other/f")
        .file("d/g", b"x")
        .file("d/sub/g", b"x")
        .hardlink("d/sub/h", "other/f")
        .symlink("d/s", "x")
        .file("d/new/deep/f")
    )
    assert os.stat(tree / "d").st_mtime == 1
    assert os.stat(tree / "d" / "sub").st_mtime == 2


def test_a_folders_time_is_right_when_its_entry_comes_last(unpack, tree):
    unpack(
        LayerTar().file("d/sub/f").folder("d/sub", mtime_ns=2 * SECOND).folder("d", mtime_ns=SECOND)
    )
    assert (os.stat(tree / "d").st_mtime, os.stat(tree / "d" / "sub").st_mtime) == (1, 2)


def test_a_whiteout_does_not_change_a_folders_time(unpack, tree):
    unpack(
        LayerTar()
        .folder("d", mtime_ns=SECOND)
        .file("d/f")
        .whiteout("d/f")
        .opaque("d")
        .whiteout("d/nothing")
    )
    assert os.stat(tree / "d").st_mtime == 1


def test_a_folder_may_be_replaced_while_its_time_is_pending(unpack, tree):
    unpack(LayerTar().folder("rc/lib").file("rc/lib/f").file("rc", b"x"))
    assert (tree / "rc").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("mtime_ns", "kept"),
    [
        (0, 0),
        (1, 1),
        (MTIME + 123456789, MTIME + 123456789),
        (2**31 * SECOND, 2**31 * SECOND),
        (-1, 0),
        (-5 * SECOND, 0),
        (2**63 - 1, 2**63 - 1),
        (2**63, 0),
        (2**40 * SECOND, 0),
    ],
)
def test_times_are_kept_to_the_nanosecond_and_what_no_time_can_be_is_1970(
    unpack, tree, mtime_ns, kept
):
    unpack(
        LayerTar()
        .file("f", b"x", mtime_ns=mtime_ns)
        .folder("d", mtime_ns=mtime_ns)
        .fifo("p", mtime_ns=mtime_ns)
    )
    os.mkdir(tree.parent / "reference")
    os.utime(tree.parent / "reference", ns=(kept, kept))  # a disk may know fewer years
    expected = os.stat(tree.parent / "reference").st_mtime_ns
    assert {record["mtime_ns"] for record in snapshot(tree).values()} == {expected}


@pytest.mark.parametrize("mtime_ns", [-1, -5 * SECOND, 0, MTIME + 123456789])
def test_a_symlink_may_be_older_than_1970_as_on_the_engine(unpack, tree, mtime_ns):
    unpack(LayerTar().symlink("s", "f", mtime_ns=mtime_ns))
    assert os.lstat(tree / "s").st_mtime_ns == mtime_ns


def test_a_further_name_of_a_symlink_sets_its_owner_and_not_its_time(unpack, tree):
    unpack(
        LayerTar()
        .symlink("s", "f", uid=7, gid=8, mtime_ns=1 * SECOND)
        .hardlink("h", "s", mtime_ns=2 * SECOND)
    )
    status = os.lstat(tree / "s")
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (0, 0, 1 * SECOND)


# --- owners --------------------------------------------------------------------------------------


def test_owners_are_mapped_to_the_hosts(unpack, tree):
    tar = LayerTar().folder("d").file("d/f", uid=65535, gid=1).symlink("s", "d", uid=2).file("i/f")
    unpack(tar.fifo("p", gid=3), id_maps=REMAPPED)
    assert {path: record["owner"] for path, record in snapshot(tree).items()} == {
        "d": "100000:200000",
        "d/f": "165535:200001",
        "s": "100002:200000",
        "i": "100000:200000",
        "i/f": "100000:200000",
        "p": "100000:200003",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_owner_outside_of_the_map_is_an_error_with_the_cure(unpack, kind):
    tar = {
        "file": LayerTar().file("d/x", uid=65673),
        "folder": LayerTar().folder("d/x", uid=65673),
        "symlink": LayerTar().symlink("d/x", "y", uid=65673),
        "symlink to a folder": LayerTar().symlink("d/x", ".", uid=65673),
        "hard link": LayerTar().file("f").hardlink("d/x", "f", uid=65673),
        "device": LayerTar().device("d/x", 1, 3, uid=65673),
        "fifo": LayerTar().fifo("d/x", uid=65673),
    }[kind]
    with pytest.raises(ApplyError) as caught:
        unpack(tar, id_maps=REMAPPED)
    assert str(caught.value) == (
        "'d/x': container user id 65673 cannot be mapped to a host id; "
        "give the remapped user a larger range in /etc/subuid"
    )


def test_a_group_outside_of_the_map_names_the_groups_file(unpack):
    with pytest.raises(ApplyError, match=r"'f': container group id 70000 .* /etc/subgid"):
        unpack(LayerTar().file("f", gid=70000), id_maps=REMAPPED)


@pytest.mark.parametrize("owner", [3_000_000_000, 2**32 - 2])
def test_large_owners_are_kept(unpack, tree, owner):
    unpack(LayerTar().file("f", uid=owner, gid=owner))
    assert (os.stat(tree / "f").st_uid, os.stat(tree / "f").st_gid) == (owner, owner)


# --- holes, ends and faults ----------------------------------------------------------------------


def test_long_runs_of_zeros_become_holes(unpack, tree):
    applied = unpack(LayerTar().file("big", bytes(8 << 20) + b"end").file("zeros", bytes(1 << 20)))
    big, zeros = os.stat(tree / "big"), os.stat(tree / "zeros")
    assert (tree / "big").read_bytes() == bytes(8 << 20) + b"end"
    assert (big.st_size, zeros.st_size) == ((8 << 20) + 3, 1 << 20)
    assert big.st_blocks * 512 < 1 << 20
    assert zeros.st_blocks == 0
    assert applied.content_size == tree_size(str(tree)) == (9 << 20) + 3


def test_a_sparse_file_of_gnu_tar_is_unpacked_with_its_holes(unpack, tree, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "s", "wb") as file:
        file.truncate(1 << 30)
        file.seek(500 << 20)
        file.write(b"middle")
    for form in ("gnu", "posix"):
        subprocess.run(
            [
                "tar",
                "-C",
                str(source),
                "--sparse",
                f"--format={form}",
                "-cf",
                str(tmp_path / "t"),
                "s",
            ],
            check=True,
        )
        with open(tmp_path / "t", "rb") as stream:
            applied = unpack(stream)
        assert applied.content_size == os.stat(tree / "s").st_size == 1 << 30
        assert os.stat(tree / "s").st_blocks * 512 < 1 << 20
        with open(tree / "s", "rb") as file:
            file.seek((500 << 20) - 2)
            assert file.read(10) == b"\0\0middle\0\0"


def test_what_follows_the_end_mark_is_read_and_ignored(unpack, tree):
    data = LayerTar().file("f", b"x").bytes() + bytes(100_000) + b"rubbish" * 1000
    stream = io.BytesIO(data)
    unpack(stream)
    assert stream.tell() == len(data)
    assert os.listdir(tree) == ["f"]


def test_a_global_header_is_ignored(unpack, tree):
    header = tarfile.TarInfo.create_pax_global_header({"comment": "0" * 40})
    unpack(io.BytesIO(header + LayerTar().file("f", b"x").bytes()))
    assert os.listdir(tree) == ["f"]


@pytest.mark.parametrize("length", [300, 1024, 1536, 2300, 2560, 3072])
def test_a_tar_that_is_cut_off_is_an_error(unpack, length):
    tar = LayerTar().folder("d").file("d/f", b"x" * 600).file("g", mtime_ns=1).bytes()
    assert len(tar) > 4096
    with pytest.raises(TarError, match="unexpected end of the tar"):
        unpack(io.BytesIO(tar[:length]))


@pytest.mark.parametrize("tar", [b"", bytes(512), bytes(1024), bytes(20480)], ids=len)
def test_an_empty_tar_is_an_empty_layer(unpack, tree, tar):
    assert unpack(io.BytesIO(tar)).content_size == 0
    assert os.listdir(tree) == []


def test_errors_of_the_stream_reach_the_caller_and_leave_nothing_open(unpack):
    class Broken(io.RawIOBase):
        def readinto(self, buffer):
            raise ConnectionResetError(errno.ECONNRESET, "the engine went away")

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            unpack(Broken())
        with pytest.raises(ApplyError):
            unpack(LayerTar().file("d/e/f").hardlink("d/e/h", "nothing"))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "limit", ["size=64k", "nr_inodes=4", pytest.param("size=4k", id="one page")]
)
def test_a_full_disk_is_an_error_that_names_the_entry(tmp_path, limit):
    tar = LayerTar()
    for number in range(8):
        tar.file(f"f{number}", os.urandom(20_000))
    with mounted(tmp_path / "disk", data=limit) as tree:
        for run in (apply_layer, lambda stream, tree: apply_overlay(stream, tree, list)):
            with pytest.raises(ApplyError, match=r"'f\d': No space left on device") as caught:
                run(tar.stream(), str(tree))
            assert caught.value.__cause__.errno == errno.ENOSPC
            for name in os.listdir(tree):
                os.unlink(tree / name)


# --- confinement ---------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path):
    """A folder beside the tree that nobody may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("precious")
    os.chmod(outside / "victim", 0o600)
    before = snapshot(outside)
    yield outside
    assert snapshot(outside) == before


def links_out(outside):
    """Names for a link that would lead to `outside`, if the root were not one."""
    return [
        str(outside),
        "../outside",
        "../../../../../../../.." + str(outside),
        "/proc/self/root" + str(outside),
    ]


@pytest.mark.parametrize("number", range(4))
def test_nothing_is_written_through_a_planted_link(unpack, tree, outside, number):
    link = links_out(outside)[number]
    attacks = [
        LayerTar().symlink("esc", link).file("esc/f", b"evil"),
        LayerTar().symlink("esc", link).file("esc/victim", b"evil"),
        LayerTar().symlink("esc", link).folder("esc/d"),
        LayerTar().symlink("esc", link).folder("esc", mode=0o777),
        LayerTar().symlink("esc", link + "/victim").file("esc", b"evil", mode=0o777),
        LayerTar().symlink("esc", link).whiteout("esc/victim"),
        LayerTar().symlink("esc", link).opaque("esc"),
        LayerTar().symlink("esc", link).hardlink("h", "esc/victim", mode=0o777),
        LayerTar().hardlink("h", link + "/victim", mode=0o777),
        LayerTar().symlink("esc", link + "/victim").hardlink("h", "esc", mode=0o777),
        LayerTar().symlink("a", link).symlink("b", "a").file("b/f", b"evil"),
        LayerTar().symlink("d/esc", "../" + link).file("d/esc/f", b"evil"),
        LayerTar().file(link + "/f", b"evil").file(link + "/victim", b"evil"),
        LayerTar().whiteout(link + "/victim").opaque(link),
        LayerTar().symlink(".wh..wh.plnk", link).file(".wh..wh.plnk/victim", b"evil"),
    ]
    for attack in attacks:
        try:
            unpack(attack)
        except ApplyError:
            pass
        apply_layer(LayerTar().opaque().stream(), str(tree))
        assert os.listdir(tree) == []


def test_a_link_to_an_absolute_path_leads_to_a_place_in_the_tree(unpack, tree):
    unpack(LayerTar().folder("run").symlink("var/run", "/run").file("var/run/x/f", b"x"))
    assert (tree / "run" / "x" / "f").read_bytes() == b"x"
    assert os.readlink(tree / "var" / "run") == "/run"


def test_no_special_file_is_opened(unpack, tree):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "s"))
    os.mkfifo(tree / "p")
    unpack(LayerTar().file("p", b"x").file("s", b"x"))
    assert ((tree / "p").read_bytes(), (tree / "s").read_bytes()) == (b"x", b"x")


# --- sizes ---------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/d", "d/d/a", "l/a"])
ENTRIES = st.lists(
    st.one_of(
        st.tuples(st.just("file"), NAMES, st.binary(max_size=600)),
        st.tuples(st.just("symlink"), NAMES, st.sampled_from(["a", "d", "/d/d", "nowhere"])),
        st.tuples(st.just("hardlink"), NAMES, NAMES),
        st.tuples(st.just("folder"), NAMES),
        st.tuples(st.just("whiteout"), NAMES),
        st.tuples(st.just("opaque"), NAMES),
        st.tuples(st.just("fifo"), NAMES),
    ),
    max_size=12,
)


def tar_of(entries):
    tar = LayerTar()
    for method, *arguments in entries:
        getattr(tar, method)(*arguments)
    return tar


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("trees")


@settings(max_examples=150, deadline=None)
@given(ENTRIES)
def test_the_size_is_that_of_what_is_there_whatever_a_tar_holds(place, entries):
    for merging in (True, False):
        tree = tempfile.mkdtemp(dir=place)
        try:
            stream = tar_of(entries).stream()
            applied = apply_layer(stream, tree) if merging else apply_overlay(stream, tree, list)
        except ApplyError:
            continue
        if applied.exact:
            assert applied.content_size == tree_size(tree)


def test_a_file_thousands_of_implied_folders_deep_is_unpacked(unpack, tree):
    path = "d/" * 1900 + "f"
    unpack(LayerTar().file(path, b"deep"))
    assert (tree / path).read_bytes() == b"deep"
    remove_tree(str(tree))  # deeper than what Python's own can remove
