"""Random trees in tars, unpacked by Manuka and by GNU tar: the same files come out.

Names are each other's parents only where the parent is a folder: what else happens is a matter of
taste between the two, and `tests.hostile` says what Manuka's is.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manuka.layers.apply import apply_layer, apply_overlay
from manuka.linux.tree import remove_tree
from tests.snapshot import Snapshot, snapshot
from tests.unit.mounts import needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar"),
]


class Member(NamedTuple):
    folder: int  # which of the folders so far it is in
    name: str
    kind: bytes
    mode: int
    owner: int
    mtime: int
    body: bytes
    target: int  # which of the files so far a hard link leads to
    attribute: bytes


members = st.builds(
    Member,
    st.integers(0, 5),
    st.text("ab.- ü\\\n", min_size=1, max_size=8).filter(lambda name: name.strip(".") != "")
    | st.just("long" * 40),
    st.sampled_from(
        [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
    ),
    st.integers(0, 0o7777),
    st.integers(0, 2**21 - 1) | st.integers(0, 2**32 - 2),
    st.integers(0, 2**33 - 1),
    st.binary(max_size=1500) | st.integers(0, 200_000).map(lambda size: bytes(size) + b"x"),
    st.integers(0, 5),
    st.binary(max_size=5),
)


def archived(format: int, wanted: List[Member]) -> bytes:
    folders, files, taken = [""], [], set()
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=format, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in wanted:
            path = folders[member.folder % len(folders)] + member.name
            if path in taken or member.name.startswith(".wh."):
                continue
            taken.add(path)
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.mtime = member.kind, member.mode, member.mtime
            info.uid = info.gid = member.owner
            if format == tarfile.PAX_FORMAT and member.kind == tarfile.REGTYPE:
                value = member.attribute.decode("utf-8", "surrogateescape")
                info.pax_headers["SCHILY.xattr.user.x"] = value
            if member.kind == tarfile.DIRTYPE:
                folders.append(path + "/")
            elif member.kind == tarfile.SYMTYPE:
                info.linkname = "../" * 3 + member.name
            elif member.kind == tarfile.LNKTYPE:
                if not files:
                    continue
                origin = files[member.target % len(files)]
                info = origin_like(info, origin)
            elif member.kind == tarfile.REGTYPE:
                info.size = len(member.body)
                files.append(info)
            archive.addfile(info, io.BytesIO(member.body))
    return stream.getvalue()


def origin_like(link: tarfile.TarInfo, origin: tarfile.TarInfo) -> tarfile.TarInfo:
    """A hard link as an archiver writes it: with what its file has."""
    link.linkname = origin.name
    for field in ("mode", "uid", "gid", "mtime", "pax_headers"):
        setattr(link, field, getattr(origin, field))
    return link


def by_gnu_tar(tar: bytes, folder: Path) -> Snapshot:
    command = ["tar", "-xf", "-", "-C", str(folder), "--numeric-owner", "--same-owner", "-p"]
    command += ["--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--absolute-names"]
    subprocess.run(command, input=tar, check=True, stderr=subprocess.PIPE)
    return snapshot(folder)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(members, max_size=8),
    st.booleans(),
)
def test_a_random_tree_is_unpacked_as_gnu_tar_unpacks_it(
    format: int, wanted: List[Member], overlaying: bool
) -> None:
    tar = archived(format, wanted)
    base = tempfile.mkdtemp()
    trees: Dict[str, Path] = {name: Path(base, name) for name in ("gnu", "manuka")}
    try:
        for tree in trees.values():
            tree.mkdir()
        if overlaying:
            apply_overlay(io.BytesIO(tar), str(trees["manuka"]), list)
        else:
            apply_layer(io.BytesIO(tar), str(trees["manuka"]))
        assert snapshot(trees["manuka"]) == by_gnu_tar(tar, trees["gnu"])
    finally:
        remove_tree(base)
