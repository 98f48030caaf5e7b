"""Drivers that are wrong in one way each, for the kit to find out.

Most are `Overlay2` with one method made worse; where the fault is in what is said over the wire,
the application is wrapped.  `FAULTS` has all of them, each with the checks that must catch it.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import shutil
import stat
import tarfile
import threading
import time
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
    Type,
)

from manuka.api import calls
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.driver import CreateOptions, DriverError, GraphDriver
from manuka.errors import ManukaError
from manuka.layers.changes import Change, Kind
from manuka.linux.mountinfo import is_mount_point
from manuka.linux.tree import remove_tree
from manuka.overlay2 import Overlay2
from manuka.overlay2.mounts import unmount_layer
from tests.conformance import naive_server
from tests.unit.folder_driver import FolderDriver
from tests.unit.wire import Running, running

App = Callable[..., Any]


class Unpacks(Overlay2):
    """Spoils what was unpacked; `spoil` gets each file's path."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        size = super().apply_diff(layer_id, parent, stream)
        folder = os.fsencode(self._home.layer(layer_id).diff)
        for top, folders, files in os.walk(folder, topdown=False):
            for name in (*files, *folders):
                self.spoil(os.path.join(top, name), os.lstat(os.path.join(top, name)))
        return size

    def spoil(self, path: bytes, status: os.stat_result) -> None:
        raise NotImplementedError


# --- content --------------------------------------------------------------------------------------


class OpaqueFlagLost(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if "trusted.overlay.opaque" in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, "trusted.overlay.opaque")


class AttributesDropped(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith("trusted."):
                os.removexattr(path, name, follow_symlinks=False)


class WhiteoutServedAsFile(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            os.unlink(path)
            folder, name = os.path.split(path)
            with open(os.path.join(folder, b".wh." + name), "wb"):
                pass


class TimeTruncated(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        minute = int(status.st_mtime) // 60 * 60
        os.utime(path, (minute, minute), follow_symlinks=False)


class FractionsOfSecondsLost(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        os.utime(path, (int(status.st_mtime),) * 2, follow_symlinks=False)


class SetIdBitsLost(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, status.st_mode & 0o777)


class OwnersLost(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        os.chown(path, 0, 0, follow_symlinks=False)


class HardLinksSplit(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            shutil.copy2(path, path + b".copy")
            os.rename(path + b".copy", path)


class LinksFollowed(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            os.unlink(path)
            with open(path, "wb"):
                pass


class DevicesLeftOut(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if status.st_rdev:
            os.unlink(path)


class ContentWrong(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode) and status.st_size > 60_000:
            with open(path, "r+b") as file:
                file.seek(50_000)
                byte = file.read(1)
                file.seek(50_000)
                file.write(bytes([byte[0] ^ 1]))


class NamesMangled(Unpacks):
    def spoil(self, path: bytes, status: os.stat_result) -> None:
        mangled = path.decode("utf-8", "replace").encode()
        if mangled != path:
            os.rename(path, mangled)


class SparseFilesCollapsed(Overlay2):
    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        tar = bytearray(stream.read())
        if tar[156:157] == b"S":
            tar[156:157] = b"0"
            tar[148:156] = b" " * 8
            tar[148:156] = b"%06o\0 " % sum(tar[:512])
        return super().apply_diff(layer_id, parent, io.BytesIO(bytes(tar)))


class EscapesThroughLinks(Overlay2):
    """Unpacks by path, as a first attempt would."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        folder = self._home.layer(layer_id).diff
        with tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
            for entry in tar:
                path = os.path.join(folder, entry.name.lstrip("/"))
                if entry.issym() and not os.path.lexists(path):
                    os.symlink(entry.linkname, path)
                elif entry.isreg() and os.path.isdir(os.path.dirname(path)):
                    data = tar.extractfile(entry)
                    assert data is not None
                    with open(path, "wb") as file:
                        file.write(data.read())
        return 0


# --- Diff, Changes, sizes -------------------------------------------------------------------------


class DiffLeavesOut(Overlay2):
    """Repacks a Diff without what `is_left_out`."""

    def diff(self, layer_id: str, parent: Optional[str]) -> Iterator[bytes]:
        whole = io.BytesIO(b"".join(super().diff(layer_id, parent)))
        packed = io.BytesIO()
        with tarfile.open(fileobj=whole) as old, tarfile.open(fileobj=packed, mode="w") as new:
            for entry in old:
                if not self.is_left_out(entry):
                    new.addfile(entry, old.extractfile(entry) if entry.isreg() else None)
        return iter([packed.getvalue()])

    def is_left_out(self, entry: tarfile.TarInfo) -> bool:
        raise NotImplementedError


class DiffMissesDeletions(DiffLeavesOut):
    def is_left_out(self, entry: tarfile.TarInfo) -> bool:
        name = os.path.basename(entry.name)
        return name.startswith(".wh.") and name != ".wh..wh..opq"


class DiffMissesOpaqueFlags(DiffLeavesOut):
    def is_left_out(self, entry: tarfile.TarInfo) -> bool:
        return os.path.basename(entry.name) == ".wh..wh..opq"


class DiffIsCompressed(Overlay2):
    def diff(self, layer_id: str, parent: Optional[str]) -> Iterator[bytes]:
        return iter([gzip.compress(b"".join(super().diff(layer_id, parent)))])


class DiffEndsEarly(Overlay2):
    """Ends after a megabyte, as if that were all."""

    def diff(self, layer_id: str, parent: Optional[str]) -> Iterator[bytes]:
        return iter([b"".join(super().diff(layer_id, parent))[: 1 << 20]])


class KindsSwapped(Overlay2):
    def changes(self, layer_id: str, parent: Optional[str]) -> List[Change]:
        return [
            Change(path, Kind((kind + 1) % 3)) for path, kind in super().changes(layer_id, parent)
        ]


class BogusChanges(Overlay2):
    """As many empty changes before the real ones: a known fault of a helper library in Go."""

    def changes(self, layer_id: str, parent: Optional[str]) -> List[Change]:
        changes = super().changes(layer_id, parent)
        return [Change("", Kind.MODIFY)] * len(changes) + changes


class ChangesForgetFolders(Overlay2):
    def changes(self, layer_id: str, parent: Optional[str]) -> List[Change]:
        changes = super().changes(layer_id, parent)
        above = {path.rpartition("/")[0] for path, _ in changes}
        return [change for change in changes if change.path not in above]


class SizeConstant(Overlay2):
    def diff_size(self, layer_id: str, parent: Optional[str]) -> int:
        return 4096


class SizeNegative(Overlay2):
    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        super().apply_diff(layer_id, parent, stream)
        return -1


class ExactDiffsClaimed(Overlay2):
    reproduces_exact_diffs = True


# --- life -----------------------------------------------------------------------------------------


class PutUnmountsAtOnce(Overlay2):
    def put(self, layer_id: str) -> None:
        layer = self._home.layer(layer_id)
        with self._locks.hold(layer_id):
            count = self._counts.get(layer)
            if is_mount_point(layer.merged):
                unmount_layer(layer)
            self._counts.set(layer, 0, count)


class PutNeverUnmounts(Overlay2):
    def put(self, layer_id: str) -> None:
        pass


class CountsLost(Overlay2):
    """Get and Put read the count, wait, and write it, without a lock."""

    def get(self, layer_id: str, mount_label: str = "") -> str:
        layer = self._home.existing(layer_id)
        count = self._counts.get(layer)
        if not count:
            return super().get(layer_id, mount_label)
        time.sleep(0.01)
        self._counts.set(layer, count + 1, count)
        return layer.merged


class PutWithoutGetFails(Overlay2):
    def put(self, layer_id: str) -> None:
        if not self._counts.get(self._home.existing(layer_id)):
            raise DriverError("it is not mounted")
        super().put(layer_id)


class PathChanges(Overlay2):
    _numbers = itertools.count()

    def get(self, layer_id: str, mount_label: str = "") -> str:
        link = f"{self.settings.home}/.path-{next(self._numbers)}"
        os.symlink(super().get(layer_id, mount_label), link)
        return link


class RemoveForgets(Overlay2):
    def remove(self, layer_id: str) -> None:
        self._home.layer(layer_id)


class RemoveOfNothingFails(Overlay2):
    def remove(self, layer_id: str) -> None:
        self._home.existing(layer_id)
        super().remove(layer_id)


class ExistsAlwaysTrue(Overlay2):
    def exists(self, layer_id: str) -> bool:
        return True


class ParentIgnored(Overlay2):
    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        super().create(layer_id, None, options)

    def create_read_write(
        self, layer_id: str, parent: Optional[str], options: CreateOptions
    ) -> None:
        super().create_read_write(layer_id, None, options)


class ParentNotAskedFor(Overlay2):
    """An unknown parent counts as none."""

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        known = parent is not None and self.exists(parent)
        super().create(layer_id, parent if known else None, options)

    create_read_write = create


class RootIsPrivate(Overlay2):
    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        os.chmod(self._home.layer(layer_id).diff, 0o700)


class SecondCreateWipes(Overlay2):
    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        self.remove(layer_id)
        super().create(layer_id, parent, options)


class CreateRaces(Overlay2):
    """Looks, waits, and makes; whoever comes meanwhile is told that it made the layer."""

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if self.exists(layer_id):
            raise DriverError(f"layer {layer_id} exists already")
        time.sleep(0.05)
        if not self.exists(layer_id):
            try:
                super().create(layer_id, parent, options)
            except DriverError:
                pass


class ChildrenShareTheirParent(FolderDriver):
    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if parent is None:
            super().create(layer_id, parent, options)
        else:
            os.symlink(parent, self.path(layer_id))


class OnlyTwentyLayers(Overlay2):
    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if parent is not None and len(self._home.layer(parent).lowers() or ()) > 20:
            raise DriverError("too many layers")
        super().create(layer_id, parent, options)


class InitWipes(Overlay2):
    def __init__(self, settings: Any) -> None:
        remove_tree(settings.home)
        super().__init__(settings)


class CleanupWipes(Overlay2):
    def cleanup(self) -> None:
        super().cleanup()
        for layer in self._home.layers():
            self._home.remove(layer)


class StatusHasNumbers(Overlay2):
    def status(self) -> List[Tuple[str, Any]]:
        return [("Layers", len(self._home.layers()))]


class UnknownLayersAreServed(Overlay2):
    """No error, and no tree either."""

    def get(self, layer_id: str, mount_label: str = "") -> str:
        try:
            return super().get(layer_id, mount_label)
        except DriverError:
            return f"{self.settings.home}/{layer_id}/merged"


# --- streams and threads --------------------------------------------------------------------------


class BrokenTarAcknowledged(Overlay2):
    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        try:
            return super().apply_diff(layer_id, parent, stream)
        except (ManukaError, OSError):
            if self.exists(layer_id):
                os.unlink(self._home.layer(layer_id).unpacking)
            return 0


class HalfLayersServed(Overlay2):
    """An error is told, but what there is of the layer passes for whole."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        try:
            return super().apply_diff(layer_id, parent, stream)
        except Exception:
            os.unlink(self._home.layer(layer_id).unpacking)
            raise


class OneCallAtATime(Overlay2):
    """A lock around every call, also around one whose body does not come."""

    _lock = threading.RLock()

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        with self._lock:
            return super().apply_diff(layer_id, parent, stream)

    def get(self, layer_id: str, mount_label: str = "") -> str:
        with self._lock:
            return super().get(layer_id, mount_label)


# --- what is said over the wire -------------------------------------------------------------------


def _answer(start_response: Any, body: bytes, status: str = "200 OK") -> List[bytes]:
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


def empty_requests_accepted(app: App) -> App:
    """A request without a body counts as one whose fields are all empty."""

    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        empty = environ.get("CONTENT_LENGTH") == "0"
        if empty and environ["PATH_INFO"] not in (calls.ACTIVATE, calls.APPLY_DIFF):
            return _answer(start_response, b"{}\n")
        return app(environ, start_response)

    return wrapped


def errors_with_200(app: App) -> App:
    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        def start(status: str, *rest: Any) -> Any:
            return start_response("200 OK", *rest)

        return app(environ, start)

    return wrapped


def errors_that_are_objects(app: App) -> App:
    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        seen: List[str] = []

        def start(status: str, headers: Any, *rest: Any) -> Any:
            seen[:] = [status]
            kept = [pair for pair in headers if pair[0].lower() != "content-length"]
            return start_response(status, kept, *rest)

        reply = app(environ, start)
        if not seen or seen[0].startswith("200"):
            return reply
        text = json.loads(b"".join(reply))["Err"]
        return [json.dumps({"Err": {"message": text}}).encode()]

    return wrapped


def no_exists(app: App) -> App:
    """A call that was never written."""

    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == calls.EXISTS:
            return _answer(start_response, b'{"Err": "not implemented"}', "501 Not Implemented")
        return app(environ, start_response)

    return wrapped


def wants_a_content_type(app: App) -> App:
    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ.get("CONTENT_LENGTH", "0") != "0" and "CONTENT_TYPE" not in environ:
            return _answer(start_response, b'{"Err": "no JSON"}', "415 Unsupported Media Type")
        return app(environ, start_response)

    return wrapped


def wants_a_host(app: App) -> App:
    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        if not environ.get("HTTP_HOST"):
            return _answer(start_response, b'{"Err": "no Host"}', "400 Bad Request")
        return app(environ, start_response)

    return wrapped


def ids_that_are_paths(app: App) -> App:
    """Create makes whatever folder the id leads to."""
    home: List[str] = []

    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path in (calls.INIT, calls.CREATE, calls.CREATE_READ_WRITE):
            body = environ["wsgi.input"].read()
            environ["wsgi.input"] = io.BytesIO(body)
            try:
                fields = json.loads(body.decode())
            except ValueError:
                fields = {}
            if path == calls.INIT:
                home[:] = [fields.get("Home", "")]
            elif "/" in str(fields.get("ID")) and "\0" not in fields["ID"]:
                os.makedirs(os.path.join(home[0], fields["ID"], "diff"), exist_ok=True)
                return _answer(start_response, b"{}\n")
        return app(environ, start_response)

    return wrapped


def missing_bodies_accepted(app: App) -> App:
    """A request for a layer without a body counts as an empty tar."""

    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == calls.APPLY_DIFF:
            try:
                first = environ["wsgi.input"].read(512)
            except ManukaError:
                first = b""
            rest = environ["wsgi.input"].read() if first else bytes(1024)
            environ["wsgi.input"] = io.BytesIO(first + rest)
        return app(environ, start_response)

    return wrapped


def empty_layers_refused(app: App) -> App:
    """A guard against the engine's retry that takes every empty layer for one."""

    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == calls.APPLY_DIFF:
            first = environ["wsgi.input"].read(512)
            if not first:
                body = b'{"Err": "an empty layer: this is a retry"}'
                return _answer(start_response, body, "500 Internal Server Error")
            environ["wsgi.input"] = io.BytesIO(first + environ["wsgi.input"].read())
        return app(environ, start_response)

    return wrapped


class _UpToTheEndMark(io.RawIOBase):
    """A tar's stream, but not what comes behind its end mark."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._zeros = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._zeros >= 1024:
            return 0
        data = self._stream.read(min(512, len(buffer)))
        self._zeros = self._zeros + len(data) if data and not any(data) else 0
        buffer[: len(data)] = data
        return len(data)


def answers_before_the_end(app: App) -> App:
    def wrapped(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == calls.APPLY_DIFF:
            environ["wsgi.input"] = io.BufferedReader(_UpToTheEndMark(environ["wsgi.input"]))
        return app(environ, start_response)

    return wrapped


def closes_idle_connections(running: Running) -> None:
    running.server.adj.channel_timeout = 1
    running.server.adj.cleanup_interval = 1
    running.server.next_channel_cleanup = 0

    def wake() -> None:
        while running.thread.is_alive():
            time.sleep(0.3)
            if not running.server._stopping:
                running.server.pull_trigger()

    threading.Thread(target=wake, daemon=True).start()


# --- all of them ----------------------------------------------------------------------------------


class Fault(NamedTuple):
    """One planted fault.

    name: what is wrong, in words.
    group: of the checks that are run; checks: those that must catch it.
    outcome: "failed", or "differs" where an engine could live with it.
    """

    name: str
    group: str
    checks: Tuple[str, ...]
    driver: Type[GraphDriver] = Overlay2
    wrap: Optional[Callable[[App], App]] = None
    tune: Optional[Callable[[Running], None]] = None
    outcome: str = "failed"
    serve: Callable[[Any], ContextManager[Running]] = running
    arguments: Tuple[str, ...] = ()

    def app(self) -> App:
        app = make_app(DriverInstance(self.driver, None))
        return app if self.wrap is None else self.wrap(app)


def _fault(name: str, group: str, *checks: str, **more: Any) -> Fault:
    return Fault(name, group, checks, **more)


FAULTS = [
    _fault("the opaque flag is lost", "whiteouts", "an_opaque_folder_hides",
           "an_opaque_mark_spares_its_own_layer", driver=OpaqueFlagLost),
    _fault("a whiteout is served as a file", "whiteouts", "a_whiteout_is_no_file",
           "a_whiteout_hides", driver=WhiteoutServedAsFile),
    _fault("a Diff misses deletions", "whiteouts", "deletions_are_in_a_diff",
           driver=DiffMissesDeletions),
    _fault("a Diff misses opaque flags", "whiteouts", "a_folder_made_anew_is_empty",
           driver=DiffMissesOpaqueFlags),
    _fault("extended attributes are dropped", "content", "file_capabilities_are_kept",
           driver=AttributesDropped),
    _fault("times are truncated", "content", "times_are_kept", driver=TimeTruncated),
    _fault("fractions of seconds are lost", "content", "times_are_kept_to_the_nanosecond",
           driver=FractionsOfSecondsLost, outcome="differs"),
    _fault("set-id bits are lost", "content", "permissions_are_kept", driver=SetIdBitsLost),
    _fault("owners are lost", "content", "owners_are_kept", driver=OwnersLost),
    _fault("hard links are split", "content", "hard_links_are_one_file", driver=HardLinksSplit),
    _fault("symbolic links are followed", "content", "symbolic_links_keep_their_targets",
           driver=LinksFollowed),
    _fault("devices are left out", "content", "devices_and_fifos_are_made", driver=DevicesLeftOut),
    _fault("content is wrong", "content", "files_have_their_content", "a_big_file_arrives_whole",
           driver=ContentWrong),
    _fault("sparse entries are taken for plain files", "content", "sparse_entries_are_expanded",
           driver=SparseFilesCollapsed, outcome="differs"),
    _fault("exact Diffs are claimed", "content", "exact_diffs_are_exact", driver=ExactDiffsClaimed),
    _fault("a Diff is compressed", "content", "a_diff_is_a_whole_tar", driver=DiffIsCompressed),
    _fault("names are mangled", "names", "names_are_kept", driver=NamesMangled),
    _fault("kinds of changes are swapped", "changes", "changes_tell_what_was_done",
           driver=KindsSwapped),
    _fault("there are bogus changes", "changes", "changes_tell_what_was_done", driver=BogusChanges),
    _fault("changes forget the folders", "changes", "changes_tell_what_was_done",
           driver=ChangesForgetFolders),
    _fault("the size is constant", "changes", "the_size_grows_with_the_layer",
           driver=SizeConstant),
    _fault("the size is negative", "changes", "sizes_are_whole_numbers", driver=SizeNegative),
    _fault("Put unmounts at once", "life", "the_tree_stays_until_the_last_put",
           driver=PutUnmountsAtOnce),
    _fault("Put never unmounts", "life", "the_last_put_unmounts", driver=PutNeverUnmounts,
           outcome="differs"),
    _fault("counts are not guarded", "concurrency", "many_gets_of_one_layer", driver=CountsLost),
    _fault("Put without Get fails", "life", "put_without_get_is_no_error",
           driver=PutWithoutGetFails),
    _fault("the path changes", "life", "the_path_is_always_the_same", driver=PathChanges),
    _fault("Remove forgets", "life", "a_removed_layer_is_gone", driver=RemoveForgets),
    _fault("Remove of nothing fails", "life", "removing_twice_is_no_error",
           driver=RemoveOfNothingFails),
    _fault("Exists is always true", "life", "exists_tells_what_there_is", driver=ExistsAlwaysTrue),
    _fault("Exists is not there", "life", "exists_tells_what_there_is", wrap=no_exists),
    _fault("the parent is ignored", "life", "a_child_shows_its_parent", driver=ParentIgnored),
    _fault("children share their parent", "life", "a_child_changes_nobody_else",
           driver=ChildrenShareTheirParent),
    _fault("a layer's root is private", "life", "a_new_layer_is_an_empty_folder",
           driver=RootIsPrivate),
    _fault("a second Create wipes the first", "life", "a_second_create_keeps_the_first",
           driver=SecondCreateWipes),
    _fault("Cleanup wipes", "life", "cleanup_loses_nothing", driver=CleanupWipes),
    _fault("Init wipes", "handshake", "a_second_init_keeps_layers", driver=InitWipes),
    _fault("Status has numbers", "handshake", "status_is_rows_of_strings",
           driver=StatusHasNumbers),
    _fault("a Content-Type is wanted", "handshake", "init_is_accepted",
           wrap=wants_a_content_type),
    _fault("a Host is wanted", "handshake", "activate_says_graphdriver", wrap=wants_a_host),
    _fault("20 layers are enough", "depth", "128_layers_work", driver=OnlyTwentyLayers,
           arguments=("-k", "128_layers_work")),
    _fault("an unknown parent counts as none", "ids", "an_unknown_parent_is_refused",
           driver=ParentNotAskedFor),
    _fault("ids are joined to paths", "ids", "create_refuses_paths", wrap=ids_that_are_paths,
           outcome="differs"),
    _fault("errors come with 200", "errors", "diff_tells_an_error_by_its_status",
           wrap=errors_with_200),
    _fault("an Err is an object", "errors", "an_error_is_a_string", wrap=errors_that_are_objects),
    _fault("unknown layers are served", "errors", "get_of_an_unknown_layer_is_an_error",
           driver=UnknownLayersAreServed),
    _fault("an empty request is accepted", "errors", "an_empty_request_is_refused",
           wrap=empty_requests_accepted),
    _fault("a missing body is a layer", "streams", "a_missing_body_is_refused",
           wrap=missing_bodies_accepted, outcome="differs"),
    _fault("an empty layer is taken for a retry", "streams",
           "an_empty_body_is_an_empty_layer", wrap=empty_layers_refused),
    _fault("a broken tar is acknowledged", "streams", "a_tar_that_breaks_off_is_refused",
           driver=BrokenTarAcknowledged),
    _fault("a cut stream is acknowledged", "streams", "a_cut_body_is_not_acknowledged",
           serve=naive_server.serving),
    _fault("a server has one thread", "concurrency", "a_stalled_layer_holds_up_nobody",
           "a_diff_can_feed_an_apply_diff", serve=naive_server.serving_one_at_a_time,
           arguments=("--timeout", "4")),
    _fault("half a layer is served", "streams", "a_half_applied_layer_is_not_served",
           "nothing_is_built_on_a_half_applied_layer", driver=HalfLayersServed,
           outcome="differs"),
    _fault("the answer comes before the end", "streams",
           "the_answer_comes_after_the_whole_body", wrap=answers_before_the_end),
    _fault("a Diff ends early", "streams", "a_big_diff_is_whole", driver=DiffEndsEarly),
    _fault("layers escape through links", "hostile", "no_layer_leads_out",
           driver=EscapesThroughLinks),
    _fault("idle connections are closed", "connections", "an_idle_connection_stays_usable",
           tune=closes_idle_connections, arguments=("--idle", "6")),
    _fault("two Creates of one id race", "concurrency", "one_of_two_creates_is_refused",
           driver=CreateRaces, outcome="differs"),
    _fault("one call at a time", "concurrency", "a_stalled_layer_holds_up_nobody",
           driver=OneCallAtATime, arguments=("--timeout", "4")),
]  # fmt: skip
