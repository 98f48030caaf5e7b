"""Two engines held against each other, with the differences that are wanted taken out.

`Pair.differences` plays cases on both sides at once and returns a list of differences for each;
`shrunk` finds a simpler case that still differs.  The left side is the engine's own overlay2, the
right one is what is compared with it.

The wanted differences are those of `Allowance`, no others; each has a test of its own in
``test_better``.  Random stacks meet only the first two of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, List, Sequence

from .sides import Case, Member, Played, Side
from .stacks import Entry, Stack, image_config, kept_folders, numbered, smaller
from .trees import PHANTOM, RECENT, File, Tree, differing

_OF_FOLDERS = ("mode", "uid", "gid", "mtime", "xattrs")


class Pair:
    """Two sides.  better: the right one is manuka, so wanted differences are to be there."""

    def __init__(self, left: Side, right: Side, better: bool) -> None:
        self.left, self.right, self.better = left, right, better
        self._numbers = itertools.count(1000)

    def apart(self, cases: Sequence[Case]) -> List[Case]:
        """The cases without a layer that two have in common, or that was played before.

        What is done to one container shows in another on the same layer: whoever reads where a
        link points, as manuka does for ``docker diff``, changes the link's access time.
        """
        return [(numbered(stack, next(self._numbers)), todo) for stack, todo in cases]

    def play(self, left: Sequence[Case], right: Sequence[Case]) -> List[tuple[Played, Played]]:
        """The left cases on the left side, the right ones on the right."""
        with ThreadPoolExecutor(2) as threads:
            one = threads.submit(self.left.play, left)
            other = threads.submit(self.right.play, right)
            return list(zip(one.result(), other.result()))

    def differences(self, cases: Sequence[Case]) -> List[List[str]]:
        """For each case what differs and should not, in lines for a person."""
        return [
            compare(case[0], left, right, self.better)
            for case, (left, right) in zip(cases, self.play(cases, cases))
        ]

    def shrunk(self, case: Case, rounds: int = 15) -> tuple[Case, List[str]]:
        """The simplest case that could be found to differ, and how it does."""
        lines = self.differences([case])[0]
        for _ in range(rounds):
            simpler = self.apart(list(_simpler(case))[:60])
            found = [(c, d) for c, d in zip(simpler, self.differences(simpler)) if d]
            if not found:
                break
            case, lines = found[0]
        return case, lines


def _simpler(case: Case) -> Iterator[Case]:
    stack, todo = case
    if todo:
        yield stack, ()
    for number in range(len(todo)):
        yield stack, todo[:number] + todo[number + 1 :]
    for other in smaller(stack):
        yield other, todo


def compare(stack: Stack, left: Played, right: Played, better: bool) -> List[str]:
    """What differs between the two sides, and between what was loaded and what was saved."""
    if left.error or right.error:
        if left.error and right.error:
            return []
        return [f"loading: {left.error or 'succeeds'} left, {right.error or 'succeeds'} right"]
    kept = kept_folders(stack) if better else {}
    if better:
        for seen in ("before", "after"):
            _forget_phantoms(getattr(left, seen), getattr(right, seen))
    lines = differing(_without(left.before, kept), _without(right.before, kept), "tree")
    lines += [line for path in kept for line in _kept_wrongly(path, kept[path], right.before)]
    lines += _unequal("operations", left.results, right.results)
    lines += differing(_without(left.after, kept), _without(right.after, kept), "changed tree")
    lines += _changes(left, right, better)
    lines += _unequal("order of the committed tar", left.order, right.order)
    lines += differing(
        _without(left.committed, kept), _without(right.committed, kept), "committed layer"
    )
    for what in ("image_id", "image_size", "size_rw", "size_root", "committed_size"):
        lines += _unequal(what, getattr(left, what), getattr(right, what))
    sent = [hashlib.sha256(layer.tar).hexdigest() for layer in stack.layers]
    image_id = "sha256:" + hashlib.sha256(image_config(stack)).hexdigest()
    for name, side in (("left", left), ("right", right)):
        lines += _unequal(f"layers sent and saved, {name}", sent, side.layers)
        lines += _unequal(f"image id sent and shown, {name}", image_id, side.image_id)
    return lines


def _unequal(what: str, left: object, right: object) -> List[str]:
    return [] if left == right else [f"{what}: {left!r} left, {right!r} right"]


# --- wanted: implied folders keep what they were ----


def _without(tree: dict, kept: dict[bytes, Entry | None]) -> dict:
    """A tree in which the attributes of the `kept` folders are left out."""
    blank = {"mode": 0, "uid": 0, "gid": 0, "mtime": RECENT, "xattrs": ()}
    return {
        path: dataclasses.replace(file, **blank)
        if path in kept and file.type in ("D", "5")
        else file
        for path, file in tree.items()
    }


def _kept_wrongly(path: bytes, entry: Entry | None, tree: Tree) -> List[str]:
    """What is not as the lower layer's entry says, in a folder that a layer above implies."""
    seen = tree.get(path)
    if seen is None or seen.type != "D":
        return [f"kept folder {path!r}: {seen}"]
    # A folder that even below was only implied may have its parent's set-group-id bit.
    wanted = File("D", 0o755 | seen.mode & 0o2000, 0, 0, RECENT)
    if entry is not None:
        mtime = entry.mtime_ns if 0 <= entry.mtime_ns < 2**63 else 0
        xattrs = tuple(sorted(entry.xattrs))
        wanted = File("D", entry.mode, entry.uid, entry.gid, mtime, xattrs=xattrs)
    return [
        f"kept folder {path!r}: {field} {getattr(wanted, field)!r} below, {getattr(seen, field)!r}"
        for field in _OF_FOLDERS
        if getattr(wanted, field) != getattr(seen, field)
    ]


# --- wanted: no name in a folder's list without a file behind it ----


def _forget_phantoms(left: Tree, right: Tree) -> None:
    for path in [path for path in left if left[path] == PHANTOM and path not in right]:
        del left[path]


# --- wanted: docker diff sees what the engine's own comparison misses ----


def _changes(left: Played, right: Played, better: bool) -> List[str]:
    lines = [
        f"docker diff {change}: only left" for change in left.changes if change not in right.changes
    ]
    more = [change for change in right.changes if change not in left.changes]
    if better:
        missed = {_shown(path) for path in right.before if _is_missed(path, right)}
        folders = {path.rpartition("/")[0] for path in missed}
        while not folders <= missed:
            missed |= folders
            folders = {path.rpartition("/")[0] for path in folders} | folders
        more = [(path, kind) for path, kind in more if kind != 0 or path not in missed]
    return lines + [f"docker diff {change}: only right" for change in more]


def _is_missed(path: bytes, side: Played) -> bool:
    """Whether a file changed in nothing that the engine's own comparison looks at.

    It compares times by the second where one of both is a whole one, links not by target, and
    takes what has a directory's bit in its type, block devices and sockets, for directories, whose
    times do not count.
    """
    before, after = side.before[path], side.after.get(path)
    if after is None or before == after or before.type == "D":
        return False
    looked_at = ("type", "mode", "uid", "gid", "device", "size")
    if any(getattr(before, field) != getattr(after, field) for field in looked_at):
        return False
    if before.mtime == after.mtime:
        return before.type == "S" and before.target != after.target
    if before.type in ("B", "socket"):
        return True
    times = before.mtime, after.mtime
    if not all(isinstance(time, int) for time in times):
        return False
    return times[0] // 10**9 == times[1] // 10**9 and 0 in (times[0] % 10**9, times[1] % 10**9)


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "replace")


__all__ = ["Member", "Pair", "compare"]
