"""manuka.linux.openat2: opening inside a folder as if it were the root."""

from __future__ import annotations

import errno
import functools
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manuka.linux import openat2
from manuka.linux.mount import MS_BIND
from manuka.linux.openat2 import open_folder, open_folder_by_hand, open_in_root, walk_in_root
from manuka.linux.tree import remove_tree
from tests.unit.mounts import make_deep_folder, mounted, needs_root

needs_openat2 = pytest.mark.skipif(not openat2._has_openat2, reason="needs Linux 5.6")
both = pytest.mark.parametrize(
    "opener", [pytest.param(open_in_root, marks=needs_openat2, id="kernel"), walk_in_root]
)
both_folders = pytest.mark.parametrize(
    "opener", [pytest.param(open_folder, marks=needs_openat2, id="kernel"), open_folder_by_hand]
)


class Root:
    """A folder to open things in, opened with O_PATH as the unpacker does."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        self.fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY)

    def open(self, opener, path, flags=os.O_RDONLY, mode=0):
        """Where `opener` gets to, relative to the root; or the name of the error."""
        try:
            fd = opener(self.fd, path, flags, mode)
        except OSError as error:
            return errno.errorcode[error.errno]
        try:
            assert not os.get_inheritable(fd)
            return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), self.path)
        finally:
            os.close(fd)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "root"
    (folder / "etc" / "deep" / "er").mkdir(parents=True)
    (folder / "etc" / "passwd").write_text("inside")
    (folder / "absolute").symlink_to("/etc")
    (folder / "up").symlink_to("../../../../etc/passwd")
    (folder / "dangling").symlink_to("/etc/new")
    (folder / "slash").symlink_to("etc/")
    (folder / "self").symlink_to("self")
    (folder / "top").symlink_to("/")
    (folder / "etc" / "deep" / "out").symlink_to("../../../outside")
    (folder / "etc" / "deep" / "back").symlink_to("../passwd")
    for number in range(1, 42):
        (folder / f"chain{number}").symlink_to(f"chain{number - 1}")
    (folder / "chain0").write_text("")
    opened = Root(folder)
    yield opened
    os.close(opened.fd)


@both
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"etc/deep/er", "etc/deep/er"),
        (b"/../etc/./deep/../passwd", "etc/passwd"),
        (b"absolute/passwd", "ELOOP"),
        (b"absolute", "ELOOP"),
        (b"top/etc/passwd", "ELOOP"),
        (b"etc/deep/back", "ELOOP"),
        (b"self/none", "ELOOP"),
        (b"etc/none/self", "ENOENT"),
        (b"etc/passwd/self", "ENOTDIR"),
    ],
)
def test_links_are_not_followed_when_that_is_asked_for(root, opener, path, expected):
    assert root.open(functools.partial(opener, follow=False), path) == expected


@both
@pytest.mark.parametrize(
    ("path", "flags", "expected"),
    [
        (b"etc/passwd", os.O_RDONLY, "etc/passwd"),
        (b"/etc/passwd", os.O_RDONLY, "etc/passwd"),
        (b"//etc//./passwd", os.O_RDONLY, "etc/passwd"),
        (b"/", os.O_RDONLY, "."),
        (b".", os.O_PATH, "."),
        (b"..", os.O_PATH, "."),
        (b"../../..", os.O_PATH, "."),
        (b"../outside", os.O_RDONLY, "ENOENT"),
        (b"../etc/../../etc/passwd", os.O_RDONLY, "etc/passwd"),
        (b"absolute", os.O_RDONLY, "etc"),
        (b"absolute/passwd", os.O_RDONLY, "etc/passwd"),
        (b"absolute/../chain0", os.O_RDONLY, "chain0"),
        (b"up", os.O_RDONLY, "etc/passwd"),
        (b"top/top/etc/passwd", os.O_RDONLY, "etc/passwd"),
        (b"etc/deep/out", os.O_RDONLY, "ENOENT"),
        (b"etc/deep/back", os.O_RDONLY, "etc/passwd"),
        (b"etc/deep/er/../../passwd", os.O_RDONLY, "etc/passwd"),
        (b"etc/passwd/", os.O_RDONLY, "ENOTDIR"),
        (b"etc/passwd/.", os.O_RDONLY, "ENOTDIR"),
        (b"etc/passwd/..", os.O_RDONLY, "ENOTDIR"),
        (b"etc/missing/..", os.O_RDONLY, "ENOENT"),
        (b"missing", os.O_RDONLY, "ENOENT"),
        (b"", os.O_RDONLY, "ENOENT"),
        (b"slash", os.O_RDONLY, "etc"),
        (b"slash/passwd", os.O_RDONLY, "etc/passwd"),
        (b"etc", os.O_WRONLY, "EISDIR"),
        (b"etc/passwd", os.O_RDONLY | os.O_DIRECTORY, "ENOTDIR"),
        # a symlink at the end
        (b"absolute", os.O_RDONLY | os.O_NOFOLLOW, "ELOOP"),
        (b"absolute", os.O_PATH | os.O_NOFOLLOW, "absolute"),
        (b"absolute", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, "ENOTDIR"),
        (b"absolute/", os.O_PATH | os.O_NOFOLLOW, "etc"),
        (b"absolute/.", os.O_PATH | os.O_NOFOLLOW, "etc"),
        (b"absolute/passwd", os.O_RDONLY | os.O_NOFOLLOW, "etc/passwd"),
        (b"self", os.O_RDONLY, "ELOOP"),
        (b"self", os.O_PATH | os.O_NOFOLLOW, "self"),
        (b"self/x", os.O_RDONLY, "ELOOP"),
        (b"chain40", os.O_RDONLY, "chain0"),
        (b"chain41", os.O_RDONLY, "ELOOP"),
        # making files
        (b"etc/new", os.O_WRONLY | os.O_CREAT, "etc/new"),
        (b"etc/new/", os.O_WRONLY | os.O_CREAT, "EISDIR"),
        (b"missing/new", os.O_WRONLY | os.O_CREAT, "ENOENT"),
        (b"dangling", os.O_WRONLY | os.O_CREAT, "etc/new"),
        (b"dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL, "EEXIST"),
        (b"dangling", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, "ELOOP"),
        (b"etc/passwd", os.O_WRONLY | os.O_CREAT | os.O_EXCL, "EEXIST"),
        (b"etc", os.O_WRONLY | os.O_CREAT, "EISDIR"),
        (b"..", os.O_WRONLY | os.O_CREAT, "EISDIR"),
        (b"etc/deep/out", os.O_WRONLY | os.O_CREAT, "outside"),
        # what C would misread or refuse
        (b"etc/passwd\0x", os.O_RDONLY, "EINVAL"),
        (b"x" * 256, os.O_RDONLY, "ENAMETOOLONG"),
        (b"etc/../" * 585 + b"x", os.O_RDONLY, "ENAMETOOLONG"),
        (b"etc/../" * 585, os.O_RDONLY, "."),
    ],
)
def test_a_path_is_resolved_with_the_folder_as_its_root(root, opener, path, flags, expected):
    assert root.open(opener, path, flags, 0o600) == expected
    with open(os.path.join(root.path, "..", "outside")) as outside:
        assert outside.read() == "secret"


@both
def test_a_new_file_gets_the_mode_less_the_umask_and_its_type_bits_are_ignored(root, opener):
    before = os.umask(0o022)
    try:
        os.close(opener(root.fd, b"new", os.O_WRONLY | os.O_CREAT, 0o100666))
    finally:
        os.umask(before)
    assert os.stat("new", dir_fd=root.fd).st_mode == 0o100644


@both
def test_flags_and_modes_that_open_ignores_are_no_error(root, opener):
    assert root.open(opener, b"etc/passwd", os.O_RDONLY, 0o644) == "etc/passwd"
    assert root.open(opener, b"etc/passwd", os.O_PATH | os.O_NONBLOCK | os.O_RDWR) == "etc/passwd"


@both
def test_files_of_more_than_2_gib_can_be_opened(root, opener):
    with open(os.path.join(root.path, "big"), "wb") as file:
        file.truncate(3 << 30)
    assert root.open(opener, b"big", os.O_RDWR) == "big"


@both
def test_a_path_deeper_than_a_process_may_open_files_needs_few_descriptors(tmp_path, opener):
    make_deep_folder(tmp_path, 1500)
    root = Root(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        assert root.open(opener, b"d/" * 1500 + b"../..").count("d") == 1498
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(root.fd)
        remove_tree(str(tmp_path / "d"))


@both
def test_an_error_names_the_whole_path(root, opener):
    with pytest.raises(FileNotFoundError) as caught:
        opener(root.fd, b"absolute/missing/\xff", os.O_RDONLY)
    assert caught.value.filename == os.fsdecode(b"absolute/missing/\xff")


@both
def test_a_failed_walk_leaves_no_descriptor_open(root, opener):
    before = os.listdir("/proc/self/fd")
    for path in (b"etc/missing", b"self", b"etc/passwd/x", b"chain41", b"etc/deep/er/../../../x"):
        root.open(opener, path)
    assert os.listdir("/proc/self/fd") == before


@both
def test_a_folder_swapped_for_a_symlink_meanwhile_does_not_lead_out(tmp_path, opener):
    (tmp_path / "secret").write_text("outside")
    folder = tmp_path / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    root = Root(folder)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(folder / "a", folder / "c")
            os.rename(folder / "link", folder / "a")
            os.rename(folder / "a", folder / "link")
            os.rename(folder / "c", folder / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        end = time.monotonic() + 0.5
        seen = set()
        while time.monotonic() < end:
            seen.add(root.open(opener, b"a/secret"))
            seen.add(root.open(opener, b"a/b/../../../secret"))
            seen.add(root.open(opener, b"a/b/../b"))
    finally:
        stop.set()
        thread.join()
        os.close(root.fd)
    assert seen <= {"ENOENT", "ENOTDIR", "ELOOP", "a/b", "c/b"}


NAMES = st.sampled_from(["a", "b", "c"])
PARTS = st.sampled_from(["a", "b", "c", "..", ".", ""])
PATHS = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "", "/"]),
    st.lists(PARTS, min_size=1, max_size=5),
).filter(bool)
MAKE = st.one_of(
    st.tuples(st.just("folder"), st.lists(NAMES, min_size=1, max_size=3)),
    st.tuples(st.just("file"), st.lists(NAMES, min_size=1, max_size=3)),
    st.tuples(st.just("link"), st.lists(NAMES, min_size=1, max_size=3), PATHS),
)
FLAGS = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_RDONLY | os.O_NOFOLLOW,
        os.O_PATH,
        os.O_PATH | os.O_NOFOLLOW,
        os.O_PATH | os.O_DIRECTORY,
        os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
        os.O_WRONLY | os.O_CREAT,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW,
    ]
)


def build(folder, plan):
    """Make what can be made of a plan: the same in every folder."""
    for kind, names, *target in plan:
        path = os.path.join(folder, *names)
        parent = os.path.dirname(path)
        if os.path.lexists(path) or not os.path.isdir(parent) or os.path.realpath(parent) != parent:
            continue
        if kind == "folder":
            os.mkdir(path)
        elif kind == "file":
            open(path, "w").close()
        else:
            os.symlink(target[0], path)


@needs_openat2
@settings(max_examples=150, deadline=None)
@given(st.lists(MAKE, max_size=12), st.lists(st.tuples(PATHS, FLAGS), min_size=1, max_size=12))
def test_the_walk_by_hand_gets_where_the_kernel_gets_in_any_tree_of_links(plan, questions):
    with tempfile.TemporaryDirectory() as base:
        answers = []
        for opener in (open_in_root, walk_in_root):
            folder = os.path.join(os.path.realpath(base), opener.__name__, "x", "y", "root")
            os.makedirs(folder)
            build(folder, plan)
            root = Root(folder)
            answers.append(
                [root.open(opener, path.encode(), flags, 0o600) for path, flags in questions]
            )
            os.close(root.fd)
        assert answers[0] == answers[1]
        assert not [answer for answer in answers[0] if answer.startswith("..")]


@both_folders
def test_a_folder_is_opened_by_its_name(root, opener):
    fd = opener(root.fd, "etc")
    assert sorted(os.listdir(fd)) == ["deep", "passwd"]
    assert not os.get_inheritable(fd)
    os.close(fd)


@both_folders
@pytest.mark.parametrize(
    ("name", "code"), [("chain0", "ENOTDIR"), ("absolute", "ENOTDIR"), ("missing", "ENOENT")]
)
def test_only_folders_are_opened_and_symlinks_are_not_followed(root, opener, name, code):
    with pytest.raises(OSError, match=name) as caught:
        opener(root.fd, name)
    assert errno.errorcode[caught.value.errno] == code
    assert caught.value.filename == name


@needs_root
@both_folders
def test_a_mount_point_is_not_entered_even_of_the_same_file_system(tmp_path, opener):
    (tmp_path / "keep").mkdir()
    fd = os.open(tmp_path, os.O_PATH)
    try:
        with mounted(tmp_path / "bind", "", str(tmp_path / "keep"), MS_BIND):
            with mounted(tmp_path / "disk"):
                for name in ("bind", "disk"):
                    with pytest.raises(OSError, match=name) as caught:
                        opener(fd, name)
                    assert caught.value.errno == errno.EXDEV
    finally:
        os.close(fd)


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_or_a_seccomp_filter_refuses_openat2_the_walk_is_used(refusal):
    """A real seccomp filter in a child makes the call fail as an old kernel or Docker would."""
    result = subprocess.run(
        [sys.executable, "-c", REFUSE, str(refusal)],
        capture_output=True,
        encoding="utf-8",
    )
    if result.returncode == 77:
        pytest.skip("no seccomp filters here")
    assert (result.returncode, result.stdout) == (0, "False True\n"), result.stderr


REFUSE = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
instructions = [
    (0x20, 0, 0, 0),  # load the number of the system call
    (0x15, 0, 1, 437),  # openat2?
    (0x06, 0, 0, 0x00050000 | int(sys.argv[1])),  # fail with this errno
    (0x06, 0, 0, 0x7FFF0000),  # allow
]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in instructions))
program = struct.pack("@HP", len(instructions), ctypes.addressof(code))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(77)
from manuka.linux import openat2
root = os.open("/etc", os.O_PATH)
fd = openat2.open_in_root(root, b"/../passwd", os.O_RDONLY)
print(openat2._has_openat2, os.path.samestat(os.fstat(fd), os.stat("/etc/passwd")))
os.close(openat2.open_folder(os.open("/", os.O_PATH), "etc"))
"""
