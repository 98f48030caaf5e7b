"""manuka.linux.mount: mounting and unmounting."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from manuka.linux.kernel import page_size
from manuka.linux.mount import (
    MS_BIND,
    MS_RDONLY,
    mount,
    mount_from,
    unmount,
    unmount_below,
)
from manuka.linux.mountinfo import is_mount_point, mounts_below
from tests.unit.mounts import mounted, needs_root, unmounted_after

pytestmark = needs_root


@pytest.fixture
def folder(tmp_path):
    """A folder whose mounts, and those below, last as long as the test."""
    with mounted(tmp_path / "disk") as disk, unmounted_after(disk):
        yield disk


def layers(folder, count):
    """Folders to mount an overlay from: lower layers "0" to COUNT - 1, with a file each."""
    for name in ("upper", "work", "merged"):
        (folder / name).mkdir()
    for number in range(count):
        layer = folder / str(number)
        layer.mkdir()
        (layer / f"file-{number}").write_text("")
    return [str(number) for number in range(count)]


def test_a_mounted_file_system_is_gone_after_unmount(folder):
    (folder / "m").mkdir()
    mount("none", str(folder / "m"), "tmpfs", data="size=64k,mode=0711")
    assert is_mount_point(str(folder / "m"))
    assert (folder / "m").stat().st_mode & 0o777 == 0o711
    unmount(str(folder / "m"))
    assert not is_mount_point(str(folder / "m"))


def test_flags_reach_the_kernel(folder):
    with mounted(folder / "m", flags=MS_RDONLY) as target:
        with pytest.raises(OSError, match="Read-only"):
            (target / "file").write_text("")


def test_a_failed_mount_names_its_target_and_errno(folder):
    with pytest.raises(FileNotFoundError) as caught:
        mount("none", str(folder / "missing"), "tmpfs")
    assert caught.value.filename == str(folder / "missing")
    with pytest.raises(OSError, match="No such device") as caught:
        mount("none", str(folder), "nosuchfs")
    assert caught.value.errno == errno.ENODEV


def test_a_failed_unmount_names_its_target_and_errno(folder):
    (folder / "plain").mkdir()
    with pytest.raises(OSError, match="Invalid argument") as caught:
        unmount(str(folder / "plain"))
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(folder / "plain"))


def test_unmount_does_not_follow_a_symlink(folder):
    with mounted(folder / "m") as target:
        (folder / "link").symlink_to(target)
        with pytest.raises(OSError, match="Invalid argument"):
            unmount(str(folder / "link"), detach=True)
        assert is_mount_point(str(target))


def test_a_busy_mount_can_only_be_detached(folder):
    with mounted(folder / "m") as target, (target / "file").open("w") as file:
        with pytest.raises(OSError, match="busy") as caught:
            unmount(str(target))
        assert caught.value.errno == errno.EBUSY
        unmount(str(target), detach=True)
        assert not is_mount_point(str(target))
        file.write("still there")


def test_paths_with_any_bytes_can_be_mounted(folder):
    name = os.fsdecode(b"blank tab\t line\n back\\slash \xc3\xa9 \xff")
    with mounted(folder / name) as target:
        assert is_mount_point(str(target))


def test_data_of_a_page_less_one_byte_is_used_to_its_end(folder):
    names = layers(folder, 2)
    first = f"lowerdir={folder}/{names[0]}:{folder}"
    padding = "/" * (page_size() - 1 - len(first) - len(names[1]))
    mount("overlay", str(folder / "merged"), "overlay", data=first + padding + names[1])
    assert sorted(os.listdir(folder / "merged")) == ["file-0", "file-1"]


def test_data_of_a_page_is_an_error_instead_of_being_cut_off(folder):
    layers(folder, 1)
    first = f"lowerdir={folder}"
    data = first + "/" * (page_size() - len(first) - 1) + "0"
    with pytest.raises(OSError, match="mount data is longer than a page") as caught:
        mount("overlay", str(folder / "merged"), "overlay", data=data)
    assert (caught.value.errno, caught.value.filename) == (errno.E2BIG, str(folder / "merged"))
    with pytest.raises(OSError, match="mount data is longer than a page") as caught:
        mount_from(str(folder), "overlay", "merged", "overlay", data=data)
    assert (caught.value.errno, caught.value.filename) == (errno.E2BIG, str(folder / "merged"))


def test_mount_from_takes_paths_relative_to_its_folder_and_leaves_the_working_folder(folder):
    names = layers(folder, 128)
    before = os.getcwd()
    data = f"lowerdir={':'.join(names)},upperdir=upper,workdir=work"
    mount_from(str(folder), "overlay", "merged", "overlay", data=data)
    assert os.getcwd() == before
    assert len(os.listdir(folder / "merged")) == 128
    (folder / "merged" / "new").write_text("new")
    assert (folder / "upper" / "new").read_text() == "new"


def test_mount_from_raises_in_the_caller_with_the_whole_path(folder):
    with pytest.raises(FileNotFoundError) as caught:
        mount_from(str(folder), "none", "missing", "tmpfs")
    assert caught.value.filename == str(folder / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        mount_from(str(folder / "nowhere"), "none", ".", "tmpfs")
    assert caught.value.filename == str(folder / "nowhere")


def test_many_threads_mount_from_their_own_folders_at_once(folder):
    before = os.getcwd()
    count = 24
    for number in range(count):
        (folder / str(number) / "here").mkdir(parents=True)

    def work(number):
        mount_from(
            str(folder / str(number)), "none", "here", "tmpfs", data=f"mode=0{number + 64:o}"
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
        assert os.getcwd() == before
    modes = [(folder / str(n) / "here").stat().st_mode & 0o777 for n in range(count)]
    assert modes == [number + 64 for number in range(count)]


def test_unmount_below_detaches_the_deepest_first_and_spares_the_folder_and_its_siblings(tmp_path):
    with mounted(tmp_path / "home") as home, mounted(tmp_path / "home2") as sibling:
        with mounted(home / "a b"), mounted(home / "a b" / "inner"), mounted(home / "c"):
            mount("none", str(home / "c"), "tmpfs")  # a second one on top
            done = unmount_below(str(home))
            assert sorted(done[1:]) == [f"{home}/a b", f"{home}/c", f"{home}/c"]
            assert done[0] == f"{home}/a b/inner"
        assert mounts_below(str(home)) == []
        assert is_mount_point(str(home))
        assert is_mount_point(str(sibling))


def test_unmount_below_finds_mounts_through_a_symlink_to_the_folder(folder):
    (folder / "home").mkdir()
    (folder / "link").symlink_to("home")
    with mounted(folder / "home" / "m"):
        assert unmount_below(str(folder / "link")) == [str(folder / "home" / "m")]


def test_unmount_below_a_missing_folder_does_nothing(tmp_path):
    assert unmount_below(str(tmp_path / "missing")) == []


def test_unmount_below_sees_bind_mounts_and_keeps_their_content(folder):
    (folder / "keep").mkdir()
    (folder / "keep" / "file").write_text("precious")
    (folder / "home").mkdir()
    with mounted(folder / "home" / "m", "", str(folder / "keep"), MS_BIND):
        assert unmount_below(str(folder / "home")) == [str(folder / "home" / "m")]
    assert (folder / "keep" / "file").read_text() == "precious"
