"""Fuzzing the unpacker, reader and all: ``python tests/fuzz/tars.py -runs=100000``, as root.

Options are libFuzzer's (``-help=1``).  The search begins with the rows of `tests.hostile.tars` and
goes on with what earlier runs found, in ``.fuzz/tars``; what fails is left in ``.fuzz`` as
``crash-…``, and given as an argument it is tried again.  ``--sample=2000`` needs no atheris: it
tries the rows and that many tars like them, always the same ones (`tests.hostile.test_fuzz`).

Each input is applied to a fresh layer upon a lower one, in one of the two ways.  A failure is:

- any error but the unpacker's own, or one whose text is no single line;
- a change of anything outside the layer's folder.  All is mounted read-only but for a small
  tmpfs, so that the attempt is an error by itself and harms nothing;
- a layer that was applied and cannot be packed again, or whose packed tar cannot be applied;
- a folder that cannot be removed, an endless loop, or more than 512 MiB of memory.

Easy to get wrong: a tar that was changed at random is refused for its checksum, and the search
ends there.  So `mutate` changes headers as such, and mends the checksums.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import random
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

FOUND = ROOT / ".fuzz"
CORPUS = FOUND / "tars"
WORLD = "MANUKA_FUZZ_WORLD"
LONGEST_INPUT = 16384
MOST_PACKED = 16 << 20

Stamp = Tuple[int, ...]


# --- a world in which nothing outside can be harmed -----------------------------------------------


def enter_world() -> None:
    """Run this program again in a mount namespace, and end with its result."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as world:
        command = ["unshare", "--mount", "--propagation=private", sys.executable, *sys.argv]
        sys.exit(subprocess.call(command, env={**os.environ, WORLD: world}))


def close_world(world: str) -> None:
    """Make everything read-only but a small tmpfs, and the folder for what is found."""
    from manuka.linux.mount import MS_BIND, MS_RDONLY, MS_REMOUNT, mount
    from manuka.linux.mountinfo import mounts

    mount("none", world, "tmpfs", data="size=256m")
    mount(str(FOUND), str(FOUND), "none", MS_BIND)
    for place in mounts():
        if place.mount_point not in (world, str(FOUND)):
            with contextlib.suppress(OSError):
                mount("none", place.mount_point, "none", MS_REMOUNT | MS_BIND | MS_RDONLY)


# --- one input ------------------------------------------------------------------------------------


class Target:
    """Applies inputs to layers, and looks at what else has changed."""

    def __init__(self, world: str) -> None:
        from tests.hostile.tars import lower

        self.outside = f"{world}/outside"
        self.layer = f"{world}/home/layer"
        self.again = f"{world}/home/again"
        self.lower = f"{world}/home/lower"
        for folder in (self.outside, f"{world}/home", self.lower):
            os.mkdir(folder)
        Path(self.outside, "secret").write_text("secret")
        self.apply(lower(self.outside).bytes(), self.lower, [])
        self.guarded = [
            f"{world}",
            f"{world}/home",
            *self.below(self.lower),
            *self.below(self.outside),
        ]
        self.before = self.stamps()

    def apply(self, tar: bytes, folder: str, lowers: List[str]) -> None:
        from manuka.layers.apply import apply_layer, apply_overlay

        if zlib.crc32(tar) % 4 == 0:
            apply_layer(io.BytesIO(tar), folder)
        else:
            apply_overlay(io.BytesIO(tar), folder, lambda: lowers)

    def try_one(self, data: bytes) -> None:
        from manuka.errors import ManukaError
        from manuka.layers.export import ExportError, export_tree
        from manuka.layers.idmap import IDENTITY
        from manuka.layers.size import tree_size
        from manuka.linux.tree import remove_tree

        os.mkdir(self.layer)
        try:
            self.apply(data, self.layer, [self.lower])
            with contextlib.suppress(ExportError):
                if tree_size(self.layer) > MOST_PACKED:
                    raise ExportError("too much to be packed")
                packed = b"".join(export_tree(self.layer, IDENTITY, "trusted.overlay."))
                os.mkdir(self.again)
                self.apply(packed, self.again, [self.lower])
                remove_tree(self.again)
        except ManukaError as error:
            text = str(error)
            assert text.isprintable(), f"no single line: {text!r}"
            assert len(text) < 2000, f"{len(text)} characters"
            assert not os.path.lexists(self.again), f"what was packed is refused: {text}"
        remove_tree(self.layer)
        after = self.stamps()
        if after != self.before:
            changed = [path for path in after if after[path] != self.before[path]]
            raise AssertionError(f"changed outside the layer: {changed}")

    def stamps(self) -> Dict[str, Stamp]:
        return {path: self.stamp(path) for path in self.guarded}

    def stamp(self, path: str) -> Stamp:
        status = os.lstat(path)
        entries = len(os.listdir(path)) if os.path.isdir(path) and not os.path.islink(path) else 0
        if path.count("/") <= self.lower.count("/") - 1:
            return (status.st_mode, status.st_uid, entries)
        return (status.st_mode, status.st_uid, entries, status.st_nlink, status.st_ctime_ns)

    @staticmethod
    def below(folder: str) -> Iterator[str]:
        for path, folders, files in os.walk(folder):
            yield path
            for name in files + folders:
                yield os.path.join(path, name)


# --- changing a tar and not only its bytes --------------------------------------------------------


def mend(data: bytearray) -> List[int]:
    """Give each header the checksum that fits; returns where the headers are."""
    from tests.hostile.raw import header_with_sum

    headers, at = [], 0
    while at + 512 <= len(data) and any(data[at : at + 512]):
        headers.append(at)
        data[at : at + 512] = header_with_sum(bytes(data[at : at + 512]))
        digits = bytes(data[at + 124 : at + 135])
        with contextlib.suppress(ValueError):
            at += int(digits.strip(b" \0") or b"0", 8) + 511 & -512
        at += 512
    return headers


class Dice:
    """A stand-in for atheris: changes a few bytes, takes some out, or repeats some."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def Mutate(self, data: bytes, limit: int) -> bytes:
        changed = bytearray(data)
        for _ in range(self.dice.randrange(1, 4)):
            one, two = sorted(self.dice.randrange(len(changed) + 1) for _ in range(2))
            kind = self.dice.randrange(4)
            if kind == 0:
                del changed[one : min(two, one + 8)]
            elif kind == 1:
                changed[one:one] = changed[one : min(two, one + 64)]
            elif one < len(changed):
                changed[one] = self.dice.choice((0, 0x2F, 0x2E, 0x80, self.dice.randrange(256)))
        return bytes(changed[:limit])


def mutate(atheris: object, data: bytes, limit: int, seed: int) -> bytes:
    """Another tar like `data`, of at most `limit` bytes."""
    from tests.hostile.raw import FIELDS

    dice = random.Random(seed)
    kind = dice.randrange(10)
    changed = bytearray(data)
    headers = mend(changed)
    if kind < 4 or not headers:
        changed = bytearray(atheris.Mutate(bytes(changed), limit))  # type: ignore[attr-defined]
    elif kind < 6:  # one field of one header
        at = dice.choice(headers)
        start, width = FIELDS[dice.choice(list(FIELDS))]
        piece = atheris.Mutate(bytes(changed[at + start : at + start + width]), width)  # type: ignore
        changed[at + start : at + start + len(piece)] = piece
    elif kind == 6:  # the type, or another header's name: so that entries meet
        at, other = dice.choice(headers), dice.choice(headers)
        if dice.random() < 0.5:
            changed[at + 156] = dice.choice(b"01234567xgLKSDVM\0")
        else:
            field = dice.choice((0, 157))
            changed[at + field : at + field + 100] = changed[other : other + 100]
    else:  # blocks, repeated, left out, or moved
        blocks = [changed[at : at + 512] for at in range(0, len(changed), 512)]
        one, two = sorted(dice.randrange(len(blocks) + 1) for _ in range(2))
        piece = blocks[one:two]
        if kind == 7:
            del blocks[one:two]
        if kind != 7 or dice.random() < 0.5:
            place = dice.randrange(len(blocks) + 1)
            blocks[place:place] = piece
        changed = bytearray(b"".join(blocks))
    if dice.random() < 0.9:
        mend(changed)
    return bytes(changed[:limit])


def seeds(outside: str) -> List[bytes]:
    """Each row of the table that is small enough."""
    from tests.hostile.tars import ROWS

    tars = [row.tar(outside) for row in ROWS]
    return [tar for tar in tars if len(tar) <= LONGEST_INPUT]


def sample(count: int, target: Target) -> None:
    """Try each row of the table, and `count` tars like them; what fails is left in ``.fuzz``."""
    rows = seeds(target.outside)
    chosen = ((rows[seed % len(rows)], seed) for seed in range(count))
    tars = (mutate(Dice(seed), row, LONGEST_INPUT, seed) for row, seed in chosen)
    for tar in itertools.chain(rows, tars):
        try:
            target.try_one(tar)
        except BaseException:
            left = FOUND / f"crash-{zlib.crc32(tar):08x}"
            left.write_bytes(tar)
            print(f"This tar fails: {left}", file=sys.stderr)
            raise
    print(f"{len(rows)} rows and {count} tars like them: no failure")


def main() -> None:
    world = os.environ.get(WORLD)
    if world is None:
        enter_world()
        return
    for argument in sys.argv[1:]:
        if argument.startswith("--sample="):
            logging.disable(logging.CRITICAL)
            os.umask(0)
            close_world(world)
            sample(int(argument[len("--sample=") :]), Target(world))
            return
    import atheris

    with atheris.instrument_imports(include=["manuka.layers", "manuka.linux.openat2"]):
        import manuka.layers.apply
        import manuka.layers.export  # noqa: F401

    logging.disable(logging.CRITICAL)
    os.umask(0)
    close_world(world)
    target = Target(world)
    for tar in seeds(target.outside):
        (CORPUS / f"row-{zlib.crc32(tar):08x}").write_bytes(tar)
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    files = [os.path.abspath(each) for each in sys.argv[1:] if not each.startswith("-")]
    arguments = [
        sys.argv[0],
        f"-max_len={LONGEST_INPUT}",
        "-timeout=60",
        "-rss_limit_mb=512",
        f"-artifact_prefix={FOUND}/",
        *options,
        *(files or [str(CORPUS)]),
    ]
    atheris.Setup(
        arguments,
        target.try_one,
        custom_mutator=lambda data, limit, seed: mutate(atheris, data, limit, seed),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
