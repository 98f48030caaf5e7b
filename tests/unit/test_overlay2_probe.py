"""manuka.overlay2.probe: finding out what overlays do here."""

from __future__ import annotations

import os

import pytest

from manuka.driver import DriverError
from manuka.linux.mount import MS_RDONLY, mount
from manuka.linux.mountinfo import mounts_below
from manuka.overlay2.probe import examine, why_not_native
from tests.unit.mounts import file_system, mounted, needs_root, overlay, unmounted_after
from tests.unit.stacks import overlay2

pytestmark = needs_root


def test_this_disk_carries_overlays_and_nothing_is_left_of_the_trial(tmp_path):
    found = examine(str(tmp_path))
    assert why_not_native(str(tmp_path), found) is None
    assert (found.xattrs, found.metacopy, found.userxattr) == ("trusted.overlay.", False, False)
    assert os.listdir(tmp_path) == []
    assert mounts_below(str(tmp_path)) == []


def test_the_status_has_the_engines_rows_in_its_order(tmp_path):
    with mounted(tmp_path / "disk"), overlay2(tmp_path / "disk") as driver:
        assert driver.status() == [
            ("Backing Filesystem", "tmpfs"),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        ]


def test_an_overlay_cannot_carry_another_and_the_error_says_what_to_do(tmp_path):
    with overlay(tmp_path) as merged:
        with pytest.raises(DriverError, match=r"lies on an overlayfs.*give the engine a data-root"):
            examine(str(merged))
        assert os.listdir(merged) == []


def test_a_disk_where_overlays_do_not_work_is_an_error_that_says_what_would_do(tmp_path):
    with mounted(tmp_path / "disk", flags=MS_RDONLY) as disk:
        with pytest.raises(DriverError) as caught:
            examine(str(disk))
    assert str(caught.value) == (
        f"overlays with several lower layers do not work in {disk} on tmpfs: Read-only file "
        "system; the driver needs root with CAP_SYS_ADMIN, the kernel's module overlay, and a disk "
        "with ext4 (without casefold), xfs (ftype=1) or btrfs"
    )


def test_a_disk_without_d_type_is_refused_with_the_cure(tmp_path):
    with file_system(tmp_path, "mkfs.xfs", "-q", "-m", "crc=0", "-n", "ftype=0") as disk:
        with pytest.raises(DriverError, match=r"d_type|overlays with several lower layers"):
            examine(str(disk))
        assert os.listdir(disk) == []


@pytest.mark.parametrize("command", [("mkfs.xfs", "-q"), ("mkfs.btrfs", "-q"), ("mkfs.ext4", "-q")])
def test_the_usual_disks_carry_overlays(tmp_path, command):
    with file_system(tmp_path, *command) as disk:
        assert why_not_native(str(disk), examine(str(disk))) is None


def test_a_trial_that_fails_is_a_reason_for_comparing(tmp_path):
    found = examine(str(tmp_path))._replace(options="no_such_option=on,")
    assert "trying it failed" in why_not_native(str(tmp_path), found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"xattrs": "user.overlay."}, "running in a user namespace"),
        ({"metacopy": True}, "without their contents"),
        ({"options": "redirect_dir=on,"}, "renames folders by redirection"),
    ],
)
def test_what_a_layers_folder_does_not_tell_is_a_reason_for_comparing(tmp_path, change, reason):
    found = examine(str(tmp_path))._replace(**change)
    assert reason in why_not_native(str(tmp_path), found)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_check_left_is_swept_up_with_its_mount(tmp_path):
    left = tmp_path / ".overlay-check-abc" / "merged"
    left.mkdir(parents=True)
    with unmounted_after(tmp_path):
        mount("left", str(left), "tmpfs")
        examine(str(tmp_path))
        assert os.listdir(tmp_path) == []
