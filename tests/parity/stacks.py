"""Random image layers: what they are made of, how they become tars, and what they stand for.

A `Stack` is a list of layers, a `Layer` a list of `Entry`; all are plain data, so that a stack can
be printed, mutated and shrunk.  `stacks` is the Hypothesis strategy, `sample` draws a repeatable
list from it, `archive` makes what ``docker load`` reads, `smaller` proposes simpler stacks to
whoever looks for the smallest that still fails, and `kept_folders` is the one piece of semantics:
which folders a layer implies without naming them.

Tars are written by the standard library, so that neither side's own writer is tested with itself.
Easy to get wrong: what the engine refuses before any driver sees it (the same path twice), or
refuses by itself (a hard link ahead of its target, a whiteout beside what it hides), must never be
drawn, for a stack that does not load tests nothing; nor a mark that hides nothing, for which the
engine makes directories (`without_idle_marks`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from typing import Callable, Iterator, List, Optional, Tuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

#: Every file type that a layer's tar has, by the letter that stands for it here.
TYPES = {
    "F": tarfile.REGTYPE,
    "D": tarfile.DIRTYPE,
    "S": tarfile.SYMTYPE,
    "H": tarfile.LNKTYPE,
    "C": tarfile.CHRTYPE,
    "B": tarfile.BLKTYPE,
    "P": tarfile.FIFOTYPE,
    "W": tarfile.REGTYPE,  # whiteout: the path is that of what it hides
    "Q": tarfile.REGTYPE,  # opaque mark: the path is that of the folder
}

#: A capability as a file system keeps it, revision 2 (capability(7)): cap_net_bind_service+ep.
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

NOON = 1_000_000_000_000_000_000  # 2001-09-09, whole seconds


@dataclasses.dataclass(frozen=True)
class Content:
    """`size` bytes of a pattern; pattern 0 is zeros, negative ones have zeros around them."""

    size: int = 0
    pattern: int = 1

    @property
    def data(self) -> bytes:
        if self.pattern == 0:
            return bytes(self.size)
        block = hashlib.sha512(b"%d" % self.pattern).digest()
        if self.pattern > 0:
            return (block * (self.size // len(block) + 1))[: self.size]
        return block.center(self.size, b"\0")[: self.size]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of a layer's tar.

    path: without a slash at either end; for whiteouts and opaque marks of what they speak of.
    target: of links.
    atime_ns: None: not in the tar.
    style: what stands before the path in the tar: nothing, ``./`` or ``/``.
    """

    kind: str
    path: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = NOON
    content: Content = Content()
    target: bytes = b""
    device: Tuple[int, int] = (0, 0)
    xattrs: Tuple[Tuple[str, bytes], ...] = ()
    atime_ns: Optional[int] = None
    style: bytes = b""

    @property
    def name(self) -> bytes:
        """Its name in the tar."""
        folder, slash, base = self.path.rpartition(b"/")
        if self.kind == "W":
            return self.style + folder + slash + b".wh." + base
        if self.kind == "Q":
            return self.style + self.path + (b"/" if self.path else b"") + b".wh..wh..opq"
        return self.style + self.path

    def __str__(self) -> str:
        parts = [self.kind, _shown(self.style + self.path) or "."]
        if self.target:
            parts.append("->" + _shown(self.target))
        if self.kind in "CB":
            parts.append("{}:{}".format(*self.device))
        if self.kind not in "WQS":
            parts.append(f"{self.mode:04o}")
        if (self.uid, self.gid) != (0, 0):
            parts.append(f"{self.uid}:{self.gid}")
        if self.content.size:
            parts.append(f"{self.content.size}B#{self.content.pattern}")
        if self.mtime_ns != NOON:
            parts.append(f"mtime={_seconds(self.mtime_ns)}")
        if self.atime_ns is not None:
            parts.append(f"atime={_seconds(self.atime_ns)}")
        parts += [f"{name}={value!r}" for name, value in self.xattrs]
        return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer's entries, in the order of the tar, and the tar's dialect.

    number: tells it from a layer with the same entries; the owner in an entry for the root, which
    engines pass over.
    """

    entries: Tuple[Entry, ...]
    dialect: int = tarfile.PAX_FORMAT
    number: int = 0

    @property
    def tar(self) -> bytes:
        output = io.BytesIO()
        if self.number:
            root = Entry("D", b"", mode=0o700, uid=self.number, style=b"./")
            output.write(_header(root, self.dialect))
        for entry in self.entries:
            output.write(_header(entry, self.dialect))
            if entry.kind == "F":
                data = entry.content.data
                output.write(data + bytes(-len(data) % 512))
        output.write(bytes(1024))
        return output.getvalue()

    def __str__(self) -> str:
        dialect = "" if self.dialect == tarfile.PAX_FORMAT else "(gnu)"
        return dialect + "{" + ", ".join(map(str, self.entries)) + "}"


@dataclasses.dataclass(frozen=True)
class Written(Layer):
    """A layer whose tar another program has written."""

    made: bytes = b""

    @property
    def tar(self) -> bytes:
        return self.made


@dataclasses.dataclass(frozen=True)
class Stack:
    """An image's layers from the lowest up."""

    layers: Tuple[Layer, ...]

    def __str__(self) -> str:
        return " ".join(f"L{number}{layer}" for number, layer in enumerate(self.layers, 1))


def layer(*entries: Entry) -> Layer:
    """A layer as a table would write it."""
    return Layer(entries)


def numbered(stack: Stack, number: int) -> Stack:
    """The stack with another `number`, so that it has no layer in common with any other."""
    lowest, *others = stack.layers
    return Stack((dataclasses.replace(lowest, number=number), *others))


# --- tars and archives ----


def _header(entry: Entry, dialect: int) -> bytes:
    info = tarfile.TarInfo(_text(entry.name))
    info.type, info.mode, info.linkname = TYPES[entry.kind], entry.mode, _text(entry.target)
    info.uid, info.gid = entry.uid, entry.gid
    info.size = entry.content.size if entry.kind == "F" else 0
    info.devmajor, info.devminor = entry.device
    info.mtime = entry.mtime_ns // 10**9
    if dialect == tarfile.PAX_FORMAT:
        if entry.mtime_ns % 10**9 or entry.mtime_ns < 0:
            info.pax_headers["mtime"] = _seconds(entry.mtime_ns)
        if entry.atime_ns is not None:
            info.pax_headers["atime"] = _seconds(entry.atime_ns)
        for name, value in entry.xattrs:
            info.pax_headers["SCHILY.xattr." + name] = _text(value)
    return info.tobuf(dialect, "utf-8", "surrogateescape")


def image_config(stack: Stack) -> bytes:
    """The image's configuration; its sha256 is the image's id."""
    digests = [hashlib.sha256(layer.tar).hexdigest() for layer in stack.layers]
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2001-09-09T01:46:40Z",
            "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest for digest in digests]},
            "history": [{"created_by": f"layer {i}"} for i in range(len(digests))],
        }
    ).encode()


def archive(images: dict[str, Stack]) -> bytes:
    """What ``docker load`` reads: several images by tag, each layer once."""
    members: dict[str, bytes] = {}
    manifest = []
    for tag, stack in images.items():
        names = []
        for part in stack.layers:
            tar = part.tar
            names.append(hashlib.sha256(tar).hexdigest() + ".tar")
            members[names[-1]] = tar
        config = image_config(stack)
        config_name = hashlib.sha256(config).hexdigest() + ".json"
        members[config_name] = config
        manifest.append({"Config": config_name, "RepoTags": [tag], "Layers": names})
    members["manifest.json"] = json.dumps(manifest).encode()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar_file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar_file.addfile(info, io.BytesIO(data))
    return output.getvalue()


# --- what a stack stands for ----


def kept_folders(stack: Stack) -> dict[bytes, Optional[Entry]]:
    """Folders that a layer implies, by having entries in them alone, over a lower layer's folder.

    For each the lower layers' entry for it, None where they imply it, too.  Folders that a later
    layer names again, or removes, are not among them.
    """
    visible: dict[bytes, Optional[Entry]] = {}  # None: an implied folder
    kept: dict[bytes, Optional[Entry]] = {}
    for part in stack.layers:
        own = {entry.path: entry for entry in part.entries if entry.kind not in "WQ"}
        implied = set()
        for entry in part.entries:
            implied.update(_folders_to(entry.path)[: None if entry.kind == "Q" else -1])
        implied -= own.keys()
        # Whiteouts hide a path and all below it; opaque marks only what is below, and what
        # replaces a folder by something else does so, too.
        gone = {entry.path for entry in part.entries if entry.kind == "W"}
        hiding = {entry.path for entry in part.entries if entry.kind != "D"}
        below = {
            path: entry
            for path, entry in visible.items()
            if path not in gone and not hiding.intersection(_folders_to(path)[:-1])
        }
        newly_kept = {path: below[path] for path in implied if _is_folder(below.get(path, own))}
        kept = {path: kept[path] for path in kept if path in below and path not in own}
        kept.update(newly_kept)
        visible = {**below, **dict.fromkeys(implied), **newly_kept, **own}
    return kept


def without_idle_marks(stack: Stack) -> Stack:
    """The same without whiteouts and opaque marks in what is no folder, here or below.

    The engine makes a folder for each of them.
    """
    chosen: List[Layer] = []
    folders: set[bytes] = set()
    for part in stack.layers:
        own_folders, own_leaves, emptied, gone = set(), set(), set(), set()
        for entry in part.entries:
            if entry.kind == "Q":
                emptied.add(entry.path)
            elif entry.kind == "W":
                gone.add(entry.path)
            else:
                own_folders.update(_folders_to(entry.path)[: None if entry.kind == "D" else -1])
                if entry.kind != "D":
                    own_leaves.add(entry.path)
        hiding = emptied | gone | own_leaves

        def stays(path: bytes, gone: set[bytes] = gone, hiding: set[bytes] = hiding) -> bool:
            return path not in gone and not hiding.intersection(_folders_to(path)[:-1])

        below = set(filter(stays, folders)) - own_leaves
        there = below | own_folders
        entries = tuple(
            entry
            for entry in part.entries
            if entry.kind not in "WQ"
            or there.issuperset(_folders_to(entry.path)[: None if entry.kind == "Q" else -1])
        )
        chosen.append(dataclasses.replace(part, entries=entries))
        folders = there
    return Stack(tuple(chosen))


def _is_folder(entry: object) -> bool:
    return entry is None or (isinstance(entry, Entry) and entry.kind == "D")


def _folders_to(path: bytes) -> List[bytes]:
    parts = path.split(b"/") if path else []
    return [b"/".join(parts[: n + 1]) for n in range(len(parts))]


# --- the generator ----

PLAIN_NAMES = (b"a", b"b", b"c")
ODD_NAMES = (
    b"n" * 101,
    b"m" * 250,
    "żółć-日本".encode(),
    b"caf\xe9",
    b"\xff\xfe" * 60,
    b"two words",
    b"new\nline",
    b"back\\slash",
    b"colon:comma,",
    b"..a",
    b".wh",
    b"-rf",
)
TIMES = (
    NOON,
    NOON + 123_456_789,
    1_300_000_000_999_999_999,
    0,
    1,
    -1_500_000_000,
    (2**33 + 7) * 10**9,
)
MODES = (0o644, 0o755, 0o600, 0, 0o7777, 0o4755, 0o2755, 0o6711, 0o1777, 0o1705, 0o444)
OWNERS = (0, 0, 0, 1, 1000, 65534, 2_097_152, 4_294_967_294)
SIZES = (0, 1, 10, 10, 511, 512, 513, 4096, 70_000, 300_000)
# No node of these belongs to a disk: an operation on one can do no harm.
DEVICES = (("C", (1, 3)), ("C", (1, 7)), ("C", (240, 70_000)), ("B", (240, 0)), ("B", (259, 4000)))
TARGETS = (
    b"a",
    b"b/c",
    b"../a",
    b"/a",
    b"/a/b",
    b"/no/such/thing",
    b"../../../../etc",
    b".",
    b"t" * 300,
    b"caf\xe9",
)
XATTR_VALUES = (b"x", b"\0\xff\n=\x80", b"v" * 200)


def names() -> st.SearchStrategy:
    """Few plain names, so that layers meet; sometimes one that is hard to carry."""
    return st.sampled_from(PLAIN_NAMES * 25 + ODD_NAMES)


def paths() -> st.SearchStrategy:
    """Paths of one to three names."""
    return st.lists(names(), min_size=1, max_size=3).map(b"/".join)


def contents() -> st.SearchStrategy:
    """Contents of every size and with holes."""
    return st.builds(Content, st.sampled_from(SIZES), st.sampled_from((1, 1, 2, 3, 0, -1)))


@st.composite
def entries(draw: Callable, earlier: Tuple[Entry, ...] = ()) -> Optional[Entry]:
    """An entry for any path; a hard link leads to one of `earlier`.  None if that has none."""
    kind = draw(st.sampled_from("FFFFDDDDSSHHPNWWQ"))
    path = draw(paths())
    common = {"mode": 0o644, "style": draw(st.sampled_from((b"",) * 6 + (b"./", b"/")))}
    if kind == "Q":
        return Entry("Q", path, **common)
    if draw(st.booleans()):
        common["uid"], common["gid"] = draw(st.sampled_from(OWNERS)), draw(st.sampled_from(OWNERS))
    common["mtime_ns"] = draw(st.sampled_from(TIMES))
    if kind == "W":
        return Entry("W", path, **common)
    common["mode"] = draw(st.sampled_from(MODES) | st.integers(0, 0o7777))
    if draw(st.integers(0, 5)) == 5:
        common["atime_ns"] = draw(st.sampled_from(TIMES))
    if kind == "H":
        targets = [entry for entry in earlier if entry.kind in "FSCBP"]
        if not targets:
            return None
        target = draw(st.sampled_from(targets))
        style = draw(st.sampled_from((b"", b"", b"/", b"./")))
        # As tar writers do it: both names say the same.  Otherwise the engine loses a capability.
        if target.xattrs or draw(st.integers(0, 2)):
            common.update(mode=target.mode, uid=target.uid, gid=target.gid, xattrs=target.xattrs)
            common.update(mtime_ns=target.mtime_ns, atime_ns=target.atime_ns)
        return Entry("H", path, target=style + target.path, **common)
    if kind == "S":
        return Entry("S", path, target=draw(st.sampled_from(TARGETS)), **common)
    if kind == "N":
        kind, device = draw(st.sampled_from(DEVICES))
        return Entry(kind, path, device=device, **common)
    xattrs = []
    if kind in "FD" and draw(st.integers(0, 4)) == 4:
        xattrs.append(("user.demo", draw(st.sampled_from(XATTR_VALUES))))
    if draw(st.integers(0, 9)) == 9:
        xattrs.append(("trusted.demo", draw(st.sampled_from(XATTR_VALUES))))
    if kind == "F" and draw(st.integers(0, 4)) == 4:
        xattrs.append(("security.capability", CAPABILITY))
    common["xattrs"] = tuple(xattrs)
    if kind == "F":
        common["content"] = draw(contents())
    return Entry(kind, path, **common)


@st.composite
def layers(draw: Callable) -> Layer:
    """A layer that the engine takes: no path twice, nothing below what is no folder."""
    chosen: List[Entry] = []
    if draw(st.integers(0, 9)) == 9:
        chosen.append(Entry("D", b"", mode=0o700, uid=1, style=b"./"))
    for _ in range(draw(st.sampled_from((3, 5, 8, 11, 0)))):
        entry = draw(entries(tuple(chosen)))
        if entry is not None and _fits(entry, chosen):
            chosen.append(entry)
    if draw(st.integers(0, 4)) < 4:
        return Layer(tuple(chosen))
    return Layer(tuple(map(_without_pax, chosen)), tarfile.GNU_FORMAT)


def stacks() -> st.SearchStrategy:
    """Images of two to five layers."""
    drawn = st.lists(layers(), min_size=2, max_size=5)
    return drawn.map(lambda chosen: without_idle_marks(Stack(tuple(chosen))))


def _fits(entry: Entry, chosen: List[Entry]) -> bool:
    """Whether an entry can stand in a tar with those before it."""
    folders, others, marks = set(), set(), set()
    for other in [*chosen, entry]:
        above = _folders_to(other.path)
        folders.update(above[:-1])
        if other.kind == "Q":
            if other.path in marks:
                return False
            marks.add(other.path)
            folders.add(other.path)
        else:
            if other.path in others:
                return False
            others.add(other.path)
    leaves = {other.path for other in [*chosen, entry] if other.kind not in "DQ"}
    return not folders & leaves


def _without_pax(entry: Entry) -> Entry:
    """What GNU's dialect can say of an entry."""
    seconds = entry.mtime_ns // 10**9 * 10**9
    return dataclasses.replace(entry, mtime_ns=seconds, atime_ns=None, xattrs=())


def sample(strategy: st.SearchStrategy, count: int, number: int) -> list:
    """`count` different examples, always the same for the same `number`."""
    found: dict = {}

    @seed(number)
    @settings(
        max_examples=3 * count,  # Hypothesis likes to repeat itself
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: object) -> None:
        found.setdefault(str(example), example)

    collect()
    return list(found.values())[:count]


# --- the smallest that still fails ----


def smaller(stack: Stack) -> Iterator[Stack]:
    """Simpler stacks, the most simplified first: less layers, less entries, plainer entries."""
    return map(without_idle_marks, _smaller(stack))


def _smaller(stack: Stack) -> Iterator[Stack]:
    for number in range(len(stack.layers)):
        if len(stack.layers) > 1:
            yield Stack(stack.layers[:number] + stack.layers[number + 1 :])
    for number, part in enumerate(stack.layers):
        for index, entry in enumerate(part.entries):
            rest = part.entries[:index], part.entries[index + 1 :]
            if not any(_leads_to(other, entry) for other in part.entries):
                yield _with_layer(stack, number, rest[0] + rest[1])
    for number, part in enumerate(stack.layers):
        for index, entry in enumerate(part.entries):
            for plainer in _plainer(entry):
                changed = (*part.entries[:index], plainer, *part.entries[index + 1 :])
                yield _with_layer(stack, number, changed)


def _leads_to(link: Entry, entry: Entry) -> bool:
    return link.kind == "H" and link.target.lstrip(b"./") == entry.path.lstrip(b"./")


def _plainer(entry: Entry) -> Iterator[Entry]:
    plain = Entry(entry.kind, entry.path, mode=0o755 if entry.kind == "D" else 0o644)
    for field in ("mode", "uid", "gid", "mtime_ns", "content", "xattrs", "atime_ns", "style"):
        if getattr(entry, field) != getattr(plain, field):
            yield dataclasses.replace(entry, **{field: getattr(plain, field)})


def _with_layer(stack: Stack, number: int, chosen: Tuple[Entry, ...]) -> Stack:
    changed = dataclasses.replace(stack.layers[number], entries=chosen)
    return Stack((*stack.layers[:number], changed, *stack.layers[number + 1 :]))


def _shown(name: bytes) -> str:
    text = name.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return "/".join(
        part if len(part) < 60 else f"{part[:12]}...{len(part)}" for part in text.split("/")
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _seconds(nanoseconds: int) -> str:
    """As PAX writes times: the fraction counts away from zero, as the sign says."""
    sign = "-" if nanoseconds < 0 else ""
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{whole}.{fraction:09d}" if fraction else f"{sign}{whole}"
