"""manuka.linux.syncfs: a file system onto the disk."""

from __future__ import annotations

import errno

import pytest

from manuka.linux.syncfs import syncfs
from tests.unit.mounts import loop_device, mounted, needs_root


@needs_root
def test_what_was_written_is_on_the_disk_afterwards(tmp_path):
    with loop_device(tmp_path, "mkfs.ext4", "-q", size="16M") as device:
        with mounted(tmp_path / "disk", "ext4", device) as disk:
            mark = b"a text that is nowhere else on this small disk"
            (disk / "file").write_bytes(mark)
            with (disk / "file").open() as file:
                syncfs(file.fileno())
            assert mark in (tmp_path / "image").read_bytes()


def test_a_closed_descriptor_is_an_error():
    with pytest.raises(OSError, match="/proc/self/fd/") as caught:
        syncfs(999_999)
    assert caught.value.errno == errno.EBADF
