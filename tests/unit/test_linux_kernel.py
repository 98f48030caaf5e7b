"""manuka.linux.kernel: facts about the kernel and this process."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading

import pytest

from manuka.linux import kernel


def test_parameters_of_the_overlay_module_are_read_without_their_line_end():
    folder = "/sys/module/overlay/parameters"
    if not os.path.isdir(folder):
        pytest.skip("the overlay module is not loaded")
    assert kernel.overlay_parameter("index") in ("Y", "N")


def test_a_parameter_that_this_kernel_lacks_is_none():
    assert kernel.overlay_parameter("no_such_parameter") is None


@pytest.mark.parametrize(
    ("uid_map", "mapped"),
    [
        ("         0          0 4294967295\n", False),
        ("         0     100000      65536\n", True),
        ("         0          0 4294967294\n", True),
        ("         0       1000          1\n         1     100000      65536\n", True),
        ("", True),
    ],
)
def test_a_uid_map_tells_a_user_namespace(uid_map, mapped):
    assert kernel.is_mapped(uid_map) is mapped


def test_a_process_in_a_user_namespace_knows_it():
    program = "from manuka.linux.kernel import in_user_namespace; print(in_user_namespace())"
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
    )
    if "unshare" in result.stderr:
        pytest.skip(f"no user namespaces here: {result.stderr}")
    assert result.stdout == "True\n"


def test_the_page_size_is_the_one_of_mmap():
    assert kernel.page_size() == mmap.PAGESIZE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.18.44-fc-v769", (6, 18)),
        ("4.18.0-25-generic", (4, 18)),
        ("5.10", (5, 10)),
        ("6.1-rc3+", (6, 1)),
        ("strange", (0, 0)),
    ],
)
def test_a_release_is_read_as_two_numbers(text, expected):
    assert kernel.parse_release(text) == expected


def test_the_running_kernel_has_a_release():
    assert kernel.release() >= (3, 18)
    assert os.uname().release.startswith("{}.{}".format(*kernel.release()))


@pytest.mark.parametrize("mask", [0o022, 0o077, 0, 0o777])
def test_the_umask_is_told_and_stays(mask):
    before = os.umask(mask)
    try:
        assert kernel.umask() == mask
        assert kernel.umask() == mask
    finally:
        assert os.umask(before) == mask


def test_a_thread_is_told_the_umask_of_the_process():
    seen = []
    before = os.umask(0o026)
    try:
        thread = threading.Thread(target=lambda: seen.append(kernel.umask()))
        thread.start()
        thread.join()
    finally:
        os.umask(before)
    assert seen == [0o026]


@pytest.mark.parametrize("text", ["Name:\tpython\n", None])
def test_a_kernel_that_does_not_tell_the_umask_is_asked_by_setting_it(tmp_path, monkeypatch, text):
    """Linux before 4.7 cannot be had here, so its /proc/self/status is put in place."""
    if text is not None:
        (tmp_path / "status").write_text(text)
    monkeypatch.setattr(kernel, "_STATUS", str(tmp_path / "status"))
    before = os.umask(0o037)
    try:
        assert kernel.umask() == 0o037
    finally:
        assert os.umask(before) == 0o037
