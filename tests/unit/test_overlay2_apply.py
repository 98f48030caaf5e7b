"""manuka.overlay2: unpacking a layer upon others; what a container then sees, in both ways."""

from __future__ import annotations

import io
import os
import stat
import struct
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manuka.driver import DriverError
from manuka.errors import ManukaError
from manuka.layers.apply import ApplyError
from manuka.layers.tar import TarError
from tests.layertar import LayerTar
from tests.snapshot import snapshot
from tests.unit.mounts import mounted, needs_root
from tests.unit.stacks import REMAPPED, apply, create, inside, overlay2, packed, start, view

pytestmark = needs_root

WAYS = ["manuka.diff=auto", "manuka.diff=naive"]
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
SECOND = 10**9


@pytest.fixture(params=WAYS)
def driver(request, tmp_path):
    with overlay2(tmp_path, request.param) as driver:
        yield driver


@pytest.fixture
def native(tmp_path):
    with overlay2(tmp_path) as driver:
        yield driver


def stack(driver, *tars):
    """Layers 1, 2, … on top of each other; the uppermost's id."""
    for number, tar in enumerate(tars, 1):
        apply(driver, str(number), str(number - 1) if number > 1 else None, tar)
    return str(len(tars))


def names(driver, layer_id):
    """The paths that a container can see; each that is listed has to be there."""
    return list(view(driver, layer_id))


# --- whiteouts -----------------------------------------------------------------------------------


def test_a_whiteout_hides_one_name_and_no_other(driver):
    one = LayerTar().file("test").folder("sub").file("sub/test").file("test2")
    assert names(driver, stack(driver, one, LayerTar().whiteout("test"))) == [
        "sub",
        "sub/test",
        "test2",
    ]


def test_a_whiteout_hides_a_whole_folder(driver):
    top = stack(driver, LayerTar().file("d/sub/f").file("k"), LayerTar().whiteout("d"))
    assert names(driver, top) == ["k"]


def test_a_whiteout_needs_no_entry_for_its_folder(driver):
    one = LayerTar().folder("d", mode=0o750, uid=9, mtime_ns=SECOND).file("d/a").file("d/b")
    top = stack(driver, one, LayerTar().whiteout("d/a"))
    with inside(driver, top) as tree:
        status = os.stat(tree / "d")
        assert os.listdir(tree / "d") == ["b"]
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o750, 9, 1)


def test_a_whiteout_of_what_is_not_there_hides_nothing(driver):
    top = stack(driver, LayerTar().file("d/f"), LayerTar().whiteout("x").whiteout("d/y"))
    assert names(driver, top) == ["d", "d/f"]


@pytest.mark.parametrize(
    "tar",
    [
        LayerTar().folder("new").whiteout("new/x"),
        LayerTar().whiteout("new/x"),
        LayerTar().folder("d").opaque("d").whiteout("d/x"),
        LayerTar().folder("d").whiteout("d/x").opaque("d"),
        LayerTar().folder("d").whiteout("d/sub/x").opaque("d"),
        LayerTar().folder("d").opaque("d").folder("d/sub").whiteout("d/sub/x"),
        LayerTar().folder("f").whiteout("f/x"),
        LayerTar().folder("d/new").device("d/new/x", 0, 0),
        LayerTar().symlink("l", "new").folder("new").whiteout("l/x"),
        LayerTar().opaque().folder("d").whiteout("d/x"),
    ],
)
def test_a_whiteout_where_nothing_shows_through_does_not_show_itself(driver, tar):
    """An overlayfs lists such a one, and then says that there is no such file."""
    one = LayerTar().file("d/old").file("d/sub/old").file("f")
    assert "x" not in {path.rpartition("/")[2] for path in names(driver, stack(driver, one, tar))}


def test_a_whiteout_in_a_base_layer_does_not_show_itself(driver):
    top = stack(driver, LayerTar().whiteout("x").file("f").whiteout("d/y"))
    assert names(driver, top) == ["f"]
    create(driver, "child", top)
    assert names(driver, "child") == ["f"]


def test_a_whiteout_through_a_link_hides_nothing_for_below_there_is_no_such_path(driver):
    one = LayerTar().file("d/a").file("d/b").symlink("lower", "d")
    two = LayerTar().folder("d").symlink("l", "d").whiteout("l/a").whiteout("lower/a").opaque("l")
    top = stack(driver, one, two)
    assert names(driver, top) == ["d", "d/a", "d/b", "l", "lower"]
    assert view(driver, top)["lower"]["type"] == "symlink"


def test_a_file_before_its_whiteout_stays(driver):
    top = stack(driver, LayerTar().file("f", b"old"), LayerTar().file("f", b"new").whiteout("f"))
    with inside(driver, top) as tree:
        assert (tree / "f").read_bytes() == b"new"


def test_a_file_behind_a_whiteout_of_the_same_layer_wins(driver):
    top = stack(driver, LayerTar().file("f", b"old"), LayerTar().whiteout("f").file("f", b"new"))
    with inside(driver, top) as tree:
        assert (tree / "f").read_bytes() == b"new"


@pytest.mark.parametrize(
    "tar",
    [
        LayerTar().whiteout("d").folder("d").file("d/new"),
        LayerTar().whiteout("d").file("d/new"),
        LayerTar().whiteout("d/sub").whiteout("d").file("d/new"),
        LayerTar().symlink("d", "x").folder("d").file("d/new"),
    ],
)
def test_a_folder_behind_its_own_whiteout_does_not_bring_back_what_was_deleted(driver, tar):
    one = LayerTar().file("d/old").file("d/sub/old")
    assert names(driver, stack(driver, one, tar)) == ["d", "d/new"]


def test_a_character_device_0_0_is_a_whiteout_for_so_it_is_to_an_overlayfs(driver):
    assert names(
        driver, stack(driver, LayerTar().file("a").file("b"), LayerTar().device("a", 0, 0))
    ) == ["b"]


def test_a_deleted_file_can_come_back_in_a_later_layer(driver):
    top = stack(
        driver, LayerTar().file("d/f", b"1"), LayerTar().whiteout("d"), LayerTar().file("d/g")
    )
    assert names(driver, top) == ["d", "d/g"]
    with inside(driver, top) as tree:
        assert stat.S_IMODE(os.stat(tree / "d").st_mode) == 0o755


# --- opaque folders ------------------------------------------------------------------------------

OPAQUE = {
    "mark first": LayerTar().opaque("d").folder("d", mode=0o700).file("d/new"),
    "mark after its folder": LayerTar().folder("d", mode=0o700).opaque("d").file("d/new"),
    "mark last": LayerTar().folder("d", mode=0o700).file("d/new").opaque("d"),
}


@pytest.mark.parametrize("order", OPAQUE)
def test_an_opaque_folder_hides_what_is_below_it_and_nothing_of_its_own_tar(driver, order):
    one = LayerTar().file("d/old").file("d/sub/old").file("k")
    top = stack(driver, one, OPAQUE[order])
    assert names(driver, top) == ["d", "d/new", "k"]
    assert view(driver, top)["d"]["mode"] == "0o700"


@pytest.mark.parametrize("order", OPAQUE)
def test_a_folder_in_an_opaque_one_does_not_merge_either(driver, order):
    two = LayerTar().folder("d").file("d/sub/new").opaque("d")
    top = stack(driver, LayerTar().file("d/sub/old"), two, OPAQUE[order])
    assert names(driver, top) == ["d", "d/new"]
    assert names(driver, "2") == ["d", "d/sub", "d/sub/new"]


def test_an_opaque_folder_without_an_entry_keeps_its_owner(driver):
    top = stack(
        driver, LayerTar().folder("d", mode=0o750, uid=9).file("d/f"), LayerTar().opaque("d")
    )
    assert names(driver, top) == ["d"]
    assert (view(driver, top)["d"]["mode"], view(driver, top)["d"]["owner"]) == ("0o750", "9:0")


def test_an_implied_folder_in_an_opaque_one_is_not_like_the_one_that_is_hidden(driver):
    one = LayerTar().folder("d/sub", mode=0o700, uid=9)
    top = stack(driver, one, LayerTar().folder("d").opaque("d").file("d/sub/f"))
    assert (view(driver, top)["d/sub"]["mode"], view(driver, top)["d/sub"]["owner"]) == (
        "0o755",
        "0:0",
    )


@pytest.mark.parametrize(
    "tar",
    [
        LayerTar().opaque().file("b").file("d/new"),
        LayerTar().file("b").file("d/new").opaque(),
        LayerTar().folder("d").whiteout("d/x").file("b").opaque().file("d/new"),
    ],
)
def test_an_opaque_root_hides_everything_below_it(driver, tar):
    one = LayerTar().file("a").file("d/old").file("d/sub/old").file("b").symlink("s", "a")
    top = stack(driver, one, tar)
    assert names(driver, top) == ["b", "d", "d/new"]
    create(driver, "child", top)
    assert names(driver, "child") == ["b", "d", "d/new"]


def test_an_opaque_root_in_a_base_layer_hides_nothing(driver):
    assert names(driver, stack(driver, LayerTar().file("a").opaque().file("b"))) == ["a", "b"]


# --- folders that the tar has no entry for -------------------------------------------------------


def test_a_folder_without_an_entry_stays_as_the_lower_layers_have_it(driver):
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (1, 4, 32)
    )
    one = LayerTar().folder("d", mode=0o2750, uid=9, gid=8, mtime_ns=SECOND + 5)
    one.folder("d/sub", mode=0o1700, uid=7, mtime_ns=2 * SECOND, xattrs={"user.x": b"1"}).file(
        "d/o"
    )
    one.folder("d/acl", xattrs={"system.posix_acl_default": acl})
    before = None
    top = stack(driver, one, LayerTar().file("d/sub/new/f").file("d/n").file("d/acl/f"))
    before, after = view(driver, "1"), view(driver, top)
    for path in ("d", "d/sub", "d/acl", "d/o"):
        assert after[path] == before[path]
    assert (after["d/sub/new"]["mode"], after["d/sub/new"]["owner"]) == ("0o755", "0:0")


@pytest.mark.parametrize(
    ("tar", "mode"),
    [
        (LayerTar().symlink("d/e/f/a", "nowhere"), "0o755"),
        (LayerTar().folder("d", mode=0o2700).symlink("d/e/f/a", "nowhere"), "0o2755"),
        (LayerTar().file("d/o").folder("d", mode=0o2700).symlink("d/e/f/a", "x"), "0o2755"),
        (LayerTar().folder("d", mode=0o700).symlink("d/e/f/a", "nowhere"), "0o755"),
        (LayerTar().folder("d/e", mode=0o2755).symlink("d/e/f/a", "nowhere"), "0o2755"),
    ],
)
def test_a_new_folder_has_the_set_group_id_bit_of_its_own_layer_s_parent_alone(driver, tar, mode):
    """In the engine's overlay2 no lower layer's folder is there to inherit it from."""
    top = stack(driver, LayerTar().folder("d", mode=0o2700), tar)
    seen = view(driver, top)
    assert [seen[path]["mode"] for path in ("d/e", "d/e/f")] == [mode] * 2


def test_a_folder_without_an_entry_over_something_else_is_a_plain_one(driver):
    top = stack(driver, LayerTar().file("x", mode=0o600), LayerTar().file("x/f"))
    assert view(driver, top)["x"]["mode"] == "0o755"


def test_a_folder_without_an_entry_takes_the_place_of_a_lower_link(driver):
    """As on the engine's overlay2: the image can be saved, where the link leads whatever."""
    one = LayerTar().file("run/a").symlink("var/run", "/run").symlink("nix", "/nowhere")
    top = stack(driver, one, LayerTar().file("var/run/f").folder("nix/d"))
    assert names(driver, top) == ["nix", "nix/d", "run", "run/a", "var", "var/run", "var/run/f"]


# --- through links -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["real", "/nix/real", "../nix/./real/", "again", "/nix/again"])
def test_a_path_through_a_link_to_a_lower_folder_leads_there(driver, target):
    one = (
        LayerTar()
        .folder("nix/real", mode=0o750, uid=9, mtime_ns=SECOND)
        .file("nix/real/old")
        .symlink("nix/again", "/nix/real")
    )
    two = (
        LayerTar()
        .symlink("nix/link", target)
        .file("nix/link/f", b"x")
        .file("nix/link/new/g")
        .hardlink("nix/link/h", "nix/link/f")
    )
    top = stack(driver, one, two)
    here = ["nix", "nix/again", "nix/link", "nix/real"]
    there = ["f", "h", "new", "new/g", "old"]
    assert names(driver, top) == [*here, *(f"nix/real/{name}" for name in there)]
    seen = view(driver, top)
    assert (seen["nix/link"]["target"], seen["nix/again"]["target"]) == (target, "/nix/real")
    assert (seen["nix/real"]["mode"], seen["nix/real"]["owner"]) == ("0o750", "9:0")


def test_a_whiteout_hides_what_is_below_of_a_folder_that_was_filled_through_a_link(driver):
    two = LayerTar().symlink("l", "d").file("l/n").whiteout("d")
    assert names(driver, stack(driver, LayerTar().file("d/a"), two)) == ["d", "d/n", "l"]


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("none", "'l' on its path leads to 'none', which is not a directory"),
        ("/d/none/x", "'l' on its path leads to 'd/none/x', which is not a directory"),
        ("f", "'l' on its path leads to 'f', which is not a directory"),
        ("gone", "'l' on its path leads to 'gone', which is not a directory"),
        ("l", "'l' on its path leads through too many others"),
        ("loop/x", "'l' on its path leads through too many others"),
    ],
)
def test_a_path_through_a_link_that_leads_to_no_folder_names_the_link(driver, target, complaint):
    one = LayerTar().file("d/a").file("f").folder("gone").symlink("loop", "/loop")
    two = LayerTar().whiteout("gone").symlink("l", target).file("l/n")
    with pytest.raises(ApplyError, match=f"'l/n': the link {complaint}"):
        stack(driver, one, two)


# --- one type over another -----------------------------------------------------------------------

KINDS = {
    "file": LayerTar().file("x", b"f", mode=0o600),
    "folder": LayerTar().folder("x", mode=0o711).file("x/own"),
    "symlink": LayerTar().symlink("x", "nowhere"),
    "link to a folder": LayerTar().folder("t").symlink("x", "t"),
    "device": LayerTar().device("x", 1, 3),
    "fifo": LayerTar().fifo("x"),
}


@pytest.mark.parametrize("upper", KINDS)
@pytest.mark.parametrize("lower", KINDS)
def test_any_type_can_lie_over_any_other(driver, lower, upper):
    one = LayerTar().folder("x").file("x/old") if lower == "folder" else KINDS[lower]
    apply(driver, "alone", None, KINDS[upper])
    expected = view(driver, "alone")
    found = view(driver, stack(driver, one, KINDS[upper]))
    if lower == upper == "folder":
        assert found.pop("x/old")
    if lower == "link to a folder":
        found.pop("t"), expected.pop("t", None)
    assert found == expected


# --- hard links ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["d/f", "/d/f"])
def test_a_hard_link_may_lead_to_a_file_of_a_lower_layer(driver, target):
    xattrs = {"security.capability": CAPABILITY, "user.x": b"1"}
    one = LayerTar().folder("d", mode=0o750, uid=9, mtime_ns=SECOND)
    one.file("d/f", b"content", mode=0o4711, uid=5, gid=6, mtime_ns=SECOND, xattrs=xattrs)
    link = LayerTar().hardlink("h", target, mode=0o4711, uid=5, gid=6, mtime_ns=SECOND)
    size = apply(driver, "one", None, one) and apply(driver, "two", "one", link)
    before, after = view(driver, "one"), view(driver, "two")
    assert after["d"] == before["d"]
    assert after["d/f"].pop("links") == after["h"].pop("links") == ["d/f", "h"]
    assert after["d/f"] == after["h"] == before["d/f"]
    if driver.settings.options != ("manuka.diff=naive",):
        assert size == driver.diff_size("two", "one") == len("content")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "device"])
def test_a_hard_link_may_lead_to_any_type_of_a_lower_layer(driver, kind):
    one = {
        "symlink": LayerTar().symlink("x", "nowhere", uid=5),
        "fifo": LayerTar().fifo("x", uid=5),
        "device": LayerTar().device("x", 1, 3, mode=0o644, uid=5),
    }[kind]
    found = view(driver, stack(driver, one, LayerTar().hardlink("h", "x", uid=5)))
    assert found["h"] == found["x"]
    assert found["h"]["links"] == ["h", "x"]


def test_a_hard_link_to_a_lower_file_replaces_an_earlier_entry(driver):
    top = stack(driver, LayerTar().file("a", b"A"), LayerTar().file("b", b"B").hardlink("b", "a"))
    with inside(driver, top) as tree:
        assert (tree / "b").read_bytes() == b"A"
        assert os.path.samefile(tree / "a", tree / "b")


@pytest.mark.parametrize(
    "tar",
    [
        LayerTar().hardlink("h", "nothing"),
        LayerTar().hardlink("h", "no/thing"),
        LayerTar().whiteout("d/f").hardlink("h", "d/f"),
        LayerTar().whiteout("d").hardlink("h", "d/f"),
        LayerTar().folder("d").opaque("d").hardlink("h", "d/f"),
        LayerTar().file("d").hardlink("h", "d/f"),
        LayerTar().hardlink("h", "d/f").hardlink("g", "d/f/x"),
    ],
)
def test_a_hard_link_to_what_is_not_there_or_hidden_is_an_error(driver, tar):
    with pytest.raises(ApplyError, match=r"^'[hg]': (it is a hard link to|Not a directory)"):
        stack(driver, LayerTar().file("d/f", b"x"), tar)


# --- AUFS ----------------------------------------------------------------------------------------


def test_what_aufs_left_is_not_seen_but_links_to_it_are(driver):
    two = (
        LayerTar()
        .file(".wh..wh.aufs")
        .folder(".wh..wh.orph", mode=0o700)
        .folder(".wh..wh.plnk", mode=0o700)
        .file(".wh..wh.plnk/1.2", b"linked")
        .hardlink("a", ".wh..wh.plnk/1.2")
        .hardlink("d/b", "/.wh..wh.plnk/1.2")
    )
    top = stack(driver, LayerTar().file("k"), two)
    assert names(driver, top) == ["a", "d", "d/b", "k"]
    with inside(driver, top) as tree:
        assert (tree / "a").read_bytes() == b"linked"
    assert driver.diff_size(top, "1") == len("linked")


@pytest.mark.parametrize("name", [".wh..wh.plnk2", ".wh..wh.plnkx/f", ".wh..wh.anything/sub/f"])
def test_a_name_that_only_looks_like_aufs_is_left_out(driver, name):
    assert names(driver, stack(driver, LayerTar().file(name, b"x").file("f"))) == ["f"]


# --- confinement across layers -------------------------------------------------------------------


def test_nothing_is_written_through_a_link_of_a_lower_layer(driver, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("precious")
    before = snapshot(outside)
    attacks = [
        LayerTar().file("esc/f", b"evil"),
        LayerTar().whiteout("esc/victim"),
        LayerTar().opaque("esc"),
        LayerTar().hardlink("h", "esc/victim"),
        LayerTar().folder("esc", mode=0o777),
    ]
    apply(driver, "one", None, LayerTar().symlink("esc", str(outside)))
    for number, attack in enumerate(attacks):
        try:
            apply(driver, f"two-{number}", "one", attack)
        except ApplyError:
            pass
    assert snapshot(outside) == before


# --- id maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_owners_are_mapped_in_and_out(tmp_path, way):
    with overlay2(tmp_path, way, id_maps=REMAPPED) as driver:
        one = LayerTar().folder("d", uid=1, gid=2).file("d/f", b"x", uid=65535).file("d/gone")
        two = (
            LayerTar()
            .whiteout("d/gone", uid=3)
            .file("d/g", uid=7, gid=8)
            .hardlink("h", "d/f", uid=65535)
        )
        top = stack(driver, one, two)
        found = view(driver, top)
        assert {path: record["owner"] for path, record in found.items()} == {
            "d": "100001:200002",
            "d/f": "165535:200000",
            "d/g": "100007:200008",
            "h": "165535:200000",
        }
        apply(driver, "again", "1", packed(driver, top, "1"))
        ignored = ["mtime_ns", "links"]  # a naive diff does not see that h is another name of d/f
        assert view(driver, "again", ignored) == view(driver, top, ignored)


def test_the_owner_of_a_whiteout_never_makes_a_layer_fail(tmp_path):
    with overlay2(tmp_path, id_maps=REMAPPED) as driver:
        top = stack(driver, LayerTar().file("f"), LayerTar().whiteout("f", uid=2**31, gid=70000))
        assert names(driver, top) == []


# --- whole or not --------------------------------------------------------------------------------

SMALL = LayerTar().folder("d").file("d/f", b"x" * 600).symlink("s", "d").whiteout("old")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [1, 300, 1024, 1536, 2300, 2800])
def test_a_layer_whose_tar_was_cut_off_is_not_whole_until_it_is_made_anew(tmp_path, way, length):
    with overlay2(tmp_path, way) as driver:
        apply(driver, "one", None, LayerTar().file("old"))
        create(driver, "two", "one")
        with pytest.raises(TarError):
            driver.apply_diff("two", "one", io.BytesIO(SMALL.bytes()[:length]))
        for driver_now in (driver, start(tmp_path, way)):
            with pytest.raises(DriverError, match="layer two is not whole"):
                driver_now.get("two")
            with pytest.raises(DriverError, match="layer two is not whole"):
                driver_now.apply_diff("two", "one", SMALL.stream())
            with pytest.raises(DriverError, match="the parent layer two is not whole"):
                create(driver_now, "three", "two")
        driver.remove("two")
        apply(driver, "two", "one", SMALL)
        assert names(driver, "two") == ["d", "d/f", "s"]


def test_an_unfinished_layer_makes_way_for_a_new_one_of_its_id(driver, tmp_path):
    create(driver, "one")
    with pytest.raises(ManukaError):
        driver.apply_diff("one", None, io.BytesIO(b"no tar"))
    driver = start(tmp_path)
    apply(driver, "one", None, LayerTar().file("f"))
    assert names(driver, "one") == ["f"]


def test_a_failed_layer_stays_mounted_nowhere(driver):
    apply(driver, "one", None, LayerTar().file("f"))
    create(driver, "two", "one")
    with pytest.raises(ApplyError):
        driver.apply_diff("two", "one", LayerTar().hardlink("h", "nothing").stream())
    assert not os.path.exists(f"{driver.settings.home}/two/merged")


def test_a_layer_can_be_unpacked_into_while_it_is_mounted(driver):
    apply(driver, "one", None, LayerTar().file("f"))
    create(driver, "two", "one")
    with inside(driver, "two") as tree:
        driver.apply_diff("two", "one", LayerTar().file("g", b"x").stream())
        assert (tree / "g").read_bytes() == b"x"


def test_a_full_disk_names_the_entry_and_the_layer_can_be_removed(tmp_path):
    tar = LayerTar()
    for number in range(40):
        tar.file(f"f{number}", os.urandom(50_000))
    with mounted(tmp_path / "disk", data="size=1m"), overlay2(tmp_path / "disk") as driver:
        before = snapshot(tmp_path / "disk", ignore=["folder times"])
        create(driver, "one")
        with pytest.raises(ApplyError, match=r"'f\d+': No space left on device"):
            driver.apply_diff("one", None, tar.stream())
        with pytest.raises(DriverError, match="not whole"):
            driver.get("one")
        driver.remove("one")
        assert snapshot(tmp_path / "disk", ignore=["folder times"]) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_can_be_written_out_to_the_disk_before_it_counts(tmp_path, way):
    with overlay2(tmp_path, way, "manuka.sync=filesystem") as driver:
        assert apply(driver, "one", None, LayerTar().file("f", b"abc")) == 3
        assert names(driver, "one") == ["f"]


def test_a_tar_upon_what_is_there_already_gives_the_size_of_all(native):
    create(native, "one")
    with inside(native, "one") as tree:
        (tree / "before").write_bytes(b"12345")
    size = native.apply_diff("one", None, LayerTar().file("f", b"abc").stream())
    assert size == native.diff_size("one", None) == 8


# --- both ways agree -----------------------------------------------------------------------------

PATHS = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b"])
ENTRIES = st.lists(
    # Hard links come last: one to a lower file brings it into the layer, and then an opaque mark
    # behind it spares it natively.
    st.one_of(
        st.tuples(st.just("file"), PATHS, st.binary(max_size=3), st.sampled_from([0o600, 0o4755])),
        st.tuples(st.just("symlink"), PATHS, st.just("nowhere")),
        st.tuples(st.just("hardlink"), PATHS, PATHS),
        st.tuples(st.just("folder"), PATHS, st.sampled_from([0o755, 0o2700])),
        st.tuples(st.just("whiteout"), PATHS),
        st.tuples(st.just("opaque"), st.sampled_from(["", "d", "d/e"])),
    ),
    max_size=8,
).map(lambda entries: sorted(entries, key=lambda entry: entry[0] == "hardlink"))


def tar_of(entries):
    tar = LayerTar()
    for method, *arguments in entries:
        getattr(tar, method)(*arguments)
    return tar


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    with overlay2(folder / "native") as native, overlay2(folder / "naive", WAYS[1]) as naive:
        yield native, naive


@settings(max_examples=100, deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=3))
@example([[("folder", "d", 0o2700)], [("symlink", "d/e/a", "nowhere")]])
def test_both_ways_show_the_same_tree_and_native_sizes_are_exact(drivers, layers):
    results = []
    made = []
    try:
        for driver in drivers:
            results.append(None)
            parent = None
            for number, entries in enumerate(layers):
                layer_id = f"layer-{number}"
                made.append((driver, layer_id))
                size = apply(driver, layer_id, parent, tar_of(entries))
                if driver is drivers[0]:
                    assert size == driver.diff_size(layer_id, parent)
                parent = layer_id
            made.append((driver, create(driver, "top", parent)))
            results[-1] = view(driver, "top", ["mtime_ns"])
    except ApplyError:
        pass
    finally:
        for driver, layer_id in reversed(made):
            driver.remove(layer_id)
    if len(results) == 2 and None not in results:
        assert results[0] == results[1]


def test_unpacking_loads_nothing_that_a_layer_brings(driver):
    """Once a layer's own library was loaded by who unpacked it in a chroot, to look up names."""
    library = "lib/x86_64-linux-gnu/libnss_files.so.2"
    evil = LayerTar().file(library, b"\x7fELF").file("etc/nsswitch.conf", b"passwd: files\n")
    evil.file("usr/lib/python3/encodings/__init__.py", b"raise SystemExit")
    modules = set(sys.modules)
    apply(driver, "evil", None, evil.file("n\u00e4me", uid=12345).file(b"\xff\xfe", gid=54321))
    assert set(sys.modules) == modules
    with open("/proc/self/maps") as file:
        assert driver.settings.home not in file.read()
