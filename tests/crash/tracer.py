"""Stop a process at each of its system calls: count them, kill it there, or let one fail.

`nursery` starts plugins and traces them with this.  A kill comes before the system call does
anything, so killing at each one in turn leaves every state behind that a crash can.  A fault makes
the kernel skip the call and answer an error.

Easy to get wrong: threads.  All of a process' threads are traced, new ones too, and one counter
runs over all of them.  Only the thread that attached may wait and go on, so the tracer has a
process of its own, without threads.  Knows the system calls of x86_64 (`supported`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import signal
import struct
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

supported = platform.machine() == "x86_64"

_SYSCALL, _DETACH, _POKEUSER = 24, 17, 6
_SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 0x4206, 0x4207, 0x420E
_OPTIONS = 0x1 | 0x8 | 0x100000  # TRACESYSGOOD, TRACECLONE, EXITKILL
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2
_ORIG_RAX, _RAX = 15 * 8, 10 * 8
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_AT_FDCWD = 0xFFFFFF9C

#: Calls that touch nothing but the process' own memory, or only wait: a kill there is a kill at
#: the next other call.
_INWARD = {
    *(7, 9, 10, 11, 12, 13, 14, 15, 23, 24, 25, 28, 34, 35, 39, 96, 97, 102, 104, 107, 108, 131),
    *(157, 158, 186, 202, 204, 219, 228, 230, 232, 270, 271, 273, 281, 318, 334, 302, 60),
}

#: Calls about files by number: name, and where their path is: a descriptor's argument and a
#: path's, None for none of it.
_FILE_CALLS: Dict[int, Tuple[str, Optional[int], Optional[int]]] = {
    **{0: ("read", 0, None), 1: ("write", 0, None), 17: ("pread64", 0, None)},
    **{18: ("pwrite64", 0, None), 20: ("writev", 0, None), 40: ("sendfile", 0, None)},
    **{2: ("open", None, 0), 257: ("openat", 0, 1), 437: ("openat2", 0, 1)},
    **{4: ("stat", None, 0), 5: ("fstat", 0, None), 6: ("lstat", None, 0)},
    **{262: ("newfstatat", 0, 1), 332: ("statx", 0, 1), 21: ("access", None, 0)},
    **{269: ("faccessat", 0, 1), 439: ("faccessat2", 0, 1), 137: ("statfs", None, 0)},
    **{138: ("fstatfs", 0, None), 217: ("getdents64", 0, None), 8: ("lseek", 0, None)},
    **{89: ("readlink", None, 0), 267: ("readlinkat", 0, 1), 80: ("chdir", None, 0)},
    **{82: ("rename", None, 1), 264: ("renameat", 2, 3), 316: ("renameat2", 2, 3)},
    **{83: ("mkdir", None, 0), 258: ("mkdirat", 0, 1), 84: ("rmdir", None, 0)},
    **{86: ("link", None, 1), 265: ("linkat", 2, 3), 88: ("symlink", None, 1)},
    **{266: ("symlinkat", 1, 2), 87: ("unlink", None, 0), 263: ("unlinkat", 0, 1)},
    **{133: ("mknod", None, 0), 259: ("mknodat", 0, 1), 90: ("chmod", None, 0)},
    **{91: ("fchmod", 0, None), 268: ("fchmodat", 0, 1), 92: ("chown", None, 0)},
    **{93: ("fchown", 0, None), 94: ("lchown", None, 0), 260: ("fchownat", 0, 1)},
    **{280: ("utimensat", 0, 1), 77: ("ftruncate", 0, None), 285: ("fallocate", 0, None)},
    **{188: ("setxattr", None, 0), 189: ("lsetxattr", None, 0), 190: ("fsetxattr", 0, None)},
    **{191: ("getxattr", None, 0), 192: ("lgetxattr", None, 0), 193: ("fgetxattr", 0, None)},
    **{194: ("listxattr", None, 0), 195: ("llistxattr", None, 0), 196: ("flistxattr", 0, None)},
    **{197: ("removexattr", None, 0), 198: ("lremovexattr", None, 0)},
    **{199: ("fremovexattr", 0, None), 74: ("fsync", 0, None), 306: ("syncfs", 0, None)},
    **{165: ("mount", None, 1), 166: ("umount2", None, 0)},
}
_OTHER_NAMES = {3: "close", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg"}
_OTHER_NAMES.update({56: "clone", 435: "clone3", 272: "unshare", 288: "accept4", 72: "fcntl"})
_OTHER_NAMES.update({16: "ioctl", 95: "umask", 41: "socket", 49: "bind", 50: "listen"})

#: The calls that a fault is made of: all about files but the end of a mount, which cannot fail so.
FALLIBLE = tuple(name for name, _, _ in _FILE_CALLS.values() if name not in ("umount2", "lseek"))

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


#: Calls that only look; `open` counts as one unless it may create or empty a file.
_LOOKING = {
    *("read", "pread64", "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat"),
    *("faccessat2", "statfs", "fstatfs", "getdents64", "lseek", "readlink", "readlinkat", "chdir"),
    *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "close"),
    *("recvfrom", "recvmsg", "accept4", "fcntl", "ioctl", "umask", "clone", "clone3", "socket"),
    *("open", "openat", "openat2"),
}
_FLAGS_OF_OPEN = {"open": 1, "openat": 2}


class Step(NamedTuple):
    """One system call that was about to be made.

    path: of the file it is about, or empty.
    changes: whether it may change what others see; a kill before one that does not is the same as
        a kill before the next.
    """

    name: str
    path: str
    changes: bool


class Plan(NamedTuple):
    """What to do.

    at: the number of the step, counted from 1; 0: only record.
    error: None: kill there.  An errno: let that call fail with it.
    names: the calls that count; empty: all that are not inward.
    below: count only calls about files below this folder; empty: all.
    spared: a folder that calls may look at without being counted; empty: none.
    """

    at: int = 0
    error: Optional[int] = None
    names: Tuple[str, ...] = ()
    below: str = ""
    spared: str = ""


class Tracer:
    """Traces one process from `attach` to `detach`, or until it is dead."""

    def __init__(self, pid: int, plan: Plan) -> None:
        self.pid = pid
        self.plan = plan
        self.steps: List[Step] = []
        self.done = False  # whether the plan's step was reached
        self.alive = True
        self._ending = False
        self._threads: Set[int] = set()
        self._failing: Set[int] = set()
        self._info = ctypes.create_string_buffer(88)

    def attach(self) -> None:
        new = True
        while new:
            new = False
            for name in os.listdir(f"/proc/{self.pid}/task"):
                tid = int(name)
                # A thread that has served a call may be about to end.
                if tid not in self._threads and _call(_SEIZE, tid, 0, _OPTIONS, tolerate=True):
                    _call(_INTERRUPT, tid, tolerate=True)
                    self._threads.add(tid)
                    new = True
        for tid in list(self._threads):
            waited, status = os.waitpid(tid, _WALL)
            self._handle(waited, status)

    def run(self, until: int, wakeup: int) -> None:
        """Go on until there is something to read at `until`, or the process is dead.

        wakeup: a descriptor that can be read when a child has stopped.
        """
        while self.alive:
            tid, status = self._next()
            if tid:
                self._handle(tid, status)
                continue
            readable, _, _ = select.select([until, wakeup], [], [], 1)
            if wakeup in readable:
                os.read(wakeup, 4096)
            elif until in readable:
                return

    def detach(self) -> None:
        """Let it go on by itself."""
        if self.done and self.plan.error is None:
            return  # It is dying, and its first thread can only be waited for after the others.
        self._ending = True  # What is called from here on is no step any more.
        for tid in list(self._threads) if self.alive else ():
            self._stop_one(tid)
        for tid in list(self._threads) if self.alive else ():
            _call(_DETACH, tid, tolerate=True)
        self._let_go_of_the_newest()

    def _let_go_of_the_newest(self) -> None:
        """A thread may have been born since, and be traced from its birth."""
        while True:
            try:
                tid, _ = os.waitpid(-1, _WALL | os.WNOHANG)
            except ChildProcessError:
                return
            if not tid:
                return
            _call(_DETACH, tid, tolerate=True)

    def _next(self) -> Tuple[int, int]:
        try:
            return os.waitpid(-1, _WALL | os.WNOHANG)
        except ChildProcessError:
            self.alive = False
            return 0, 0

    def _stop_one(self, tid: int) -> None:
        """Bring a thread to a stop, from where it can be let go.

        Any stop will do, and has to: each takes the interruption back.
        """
        _call(_INTERRUPT, tid, tolerate=True)
        while True:
            try:
                waited, status = os.waitpid(tid, _WALL)
            except ChildProcessError:
                return
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self._gone(waited)
                return
            if os.WSTOPSIG(status) == _SYSCALL_STOP:
                self._at_system_call(tid)
            if tid not in self._failing:
                return
            _call(_SYSCALL, tid, tolerate=True)

    def _gone(self, tid: int) -> None:
        self._threads.discard(tid)
        if tid == self.pid or not self._threads:
            self.alive = False

    def _handle(self, tid: int, status: int) -> None:
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._gone(tid)
            return
        self._threads.add(tid)
        number = os.WSTOPSIG(status)
        deliver = 0
        if number == _SYSCALL_STOP:
            if self._at_system_call(tid):
                return
        elif status >> 16 == 0 and number != signal.SIGTRAP:
            deliver = number
        _call(_SYSCALL, tid, 0, deliver, tolerate=True)

    def _at_system_call(self, tid: int) -> bool:
        """Look at the call that a thread is in; True when that killed it."""
        size = ctypes.sizeof(self._info)
        if _ptrace(_GET_SYSCALL_INFO, tid, size, ctypes.addressof(self._info)) < 0:
            return False
        op = self._info.raw[0]
        if op == _EXIT and tid in self._failing:
            self._failing.discard(tid)
            assert self.plan.error is not None
            _call(_POKEUSER, tid, _RAX, -self.plan.error & (1 << 64) - 1)
        if op != _ENTRY or self.done or self._ending:
            return False
        number, *args = struct.unpack_from("7Q", self._info.raw, 24)
        if number in _INWARD or not self._counts(tid, number, args):
            return False
        self.done = len(self.steps) == self.plan.at
        if not self.done:
            return False
        if self.plan.error is None:
            os.kill(self.pid, signal.SIGKILL)
            return True
        self._failing.add(tid)
        _call(_POKEUSER, tid, _ORIG_RAX, (1 << 64) - 1)
        return False

    def _counts(self, tid: int, number: int, args: List[int]) -> bool:
        """Note the call as a step, unless it is none."""
        name, at_fd, at_path = _FILE_CALLS.get(number, ("", None, None))
        plan = self.plan
        if plan.names and name not in plan.names:
            return False
        path = ""
        if name:
            path = self._path(tid, args, at_fd, at_path)
        if plan.below and not path.startswith(plan.below):
            return False
        name = name or _OTHER_NAMES.get(number, f"call {number}")
        changes = name not in _LOOKING
        if name in _FLAGS_OF_OPEN:
            changes = bool(args[_FLAGS_OF_OPEN[name]] & (os.O_CREAT | os.O_TRUNC))
        if plan.spared and not changes and path.startswith(plan.spared):
            return False
        self.steps.append(Step(name, path, changes))
        return True

    def _path(self, tid: int, args: List[int], at_fd: Optional[int], at_path: Optional[int]) -> str:
        text = "" if at_path is None else self._string(tid, args[at_path])
        if text.startswith("/"):
            self_fd = "/proc/self/fd/"
            if not text.startswith(self_fd):
                return text
            number, _, rest = text[len(self_fd) :].partition("/")
            return os.path.join(self._link(f"fd/{number}"), rest)
        folder = ""
        if at_fd is not None and args[at_fd] & 0xFFFFFFFF != _AT_FDCWD:
            folder = self._link(f"fd/{args[at_fd] & 0xFFFFFFFF}")
        elif text:
            folder = self._link("cwd", tid)
        return os.path.join(folder, text) if text else folder

    def _link(self, name: str, tid: int = 0) -> str:
        try:
            return os.readlink(f"/proc/{tid or self.pid}/{name}")
        except OSError:
            return "?"

    def _string(self, tid: int, address: int) -> str:
        if not address:
            return ""
        try:
            with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                # A path may lie just before a page that is not there.
                data = memory.read(4096 - address % 4096)
                if b"\0" not in data:
                    data += memory.read(4096)
        except OSError:
            return "?"
        return os.fsdecode(data.partition(b"\0")[0])


def _call(request: int, tid: int, address: int = 0, data: int = 0, tolerate: bool = False) -> bool:
    if _ptrace(request, tid, address, data) >= 0:
        return True
    code = ctypes.get_errno()
    if tolerate and code in (errno.ESRCH, errno.EPERM):  # it is gone, or a zombie about to go
        return False
    raise OSError(code, os.strerror(code), f"ptrace {request:#x} of {tid}")
