"""manuka.linux.libc: calling the C library."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from manuka.linux.libc import c_string, call, function, os_error


def test_a_failed_call_raises_the_error_of_its_errno_with_the_path():
    rmdir = function("rmdir", [ctypes.c_char_p])
    with pytest.raises(FileNotFoundError) as caught:
        call(rmdir, b"/does/not/exist", path="/does/not/exist")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == "/does/not/exist"
    assert str(caught.value) == "[Errno 2] No such file or directory: '/does/not/exist'"


def test_a_call_that_works_returns_its_result():
    assert call(function("getpid", [])) == os.getpid()


def test_a_nul_byte_in_a_name_is_an_error_and_does_not_cut_it_short():
    with pytest.raises(OSError, match="NUL") as caught:
        c_string("/etc\0/passwd")
    assert caught.value.errno == errno.EINVAL


def test_bytes_that_are_no_text_reach_c_unchanged():
    assert c_string(os.fsdecode(b"/a\xff\xfe")) == b"/a\xff\xfe"


def test_an_error_about_bytes_shows_their_text():
    assert os_error(errno.EBUSY, b"/a").filename == "/a"
    assert os_error(errno.EBUSY).filename is None
