"""The engine's own unpacking of a layer, by itself: what ApplyDiff is compared with.

Up to 23, an engine unpacks in a copy of its own program, under the name ``docker-untar``, which
changes its root to the layer's folder and reads the tar from a pipe.  `Unpacker` starts that
program as the engine does and feeds it as the engine does; what is left out is the walk by which
overlay2 then adds up the layer's size, and that is to native's advantage.  Later engines unpack
within their own process and cannot be measured in this way.

Source: ``pkg/chrootarchive/archive_unix.go`` and ``daemon/graphdriver/overlay2`` in the engine.
Easy to get wrong: the options come by file descriptor 3, as JSON.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from typing import Iterable

from manuka.toolkit.bench import archives
from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.client import CHUNK

_OVERLAY_WHITEOUTS = b'{"WhiteoutFormat": 1}\n'


class Unpacker:
    """The unpacking of the engine whose dockerd is `program`."""

    def __init__(self, program: str) -> None:
        self._program = program

    def works(self, folder: str) -> bool:
        """Whether this engine has such a program; tried in `folder`."""
        with tempfile.TemporaryDirectory(dir=folder) as layer:
            try:
                self.apply(layer, archives.few_files(1))
            except BenchError:
                return False
            return os.path.exists(os.path.join(layer, "srv"))

    def apply(self, layer: str, tar: Iterable[bytes]) -> float:
        """Unpack into the folder `layer`; the seconds that it took.  Raises BenchError."""
        read_options, write_options = os.pipe()
        os.write(write_options, _OVERLAY_WHITEOUTS)
        os.close(write_options)
        began = time.perf_counter()
        try:
            child = subprocess.Popen(
                ["docker-untar", "/", layer],
                executable=self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.dup2(read_options, 3),
                close_fds=False,
            )
        finally:
            os.close(read_options)
        assert child.stdin is not None
        fd = child.stdin.fileno()
        try:
            for piece in tar:
                view = memoryview(piece)
                for start in range(0, len(view), CHUNK):
                    chunk = view[start : start + CHUNK]
                    while chunk:
                        chunk = chunk[os.write(fd, chunk) :]
        except BrokenPipeError:
            pass  # it says why
        finally:
            said, _ = child.communicate()
        took = time.perf_counter() - began
        if child.returncode != 0:
            raise BenchError(f"{self._program}: " + said.decode(errors="replace").strip())
        return took
