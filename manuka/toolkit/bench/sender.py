"""Keeps a plugin busy with a layer of many files, again and again, from a process of its own.

Run by `wire` as ``python -m manuka.toolkit.bench.sender SOCKET PARENT SIZE``.  It reads the layer's
tar of so many bytes from its standard input, says ``sending`` when it begins, and ends with that
input, which is when its starter wants it or is gone.
"""

from __future__ import annotations

import select
import sys

from manuka.toolkit.bench import archives
from manuka.toolkit.bench.wireclient import Wire


def main(socket_path: str, parent: str, size: int) -> None:
    layer = archives.Stream(((sys.stdin.buffer.read(size), 1),))
    number = 0
    with Wire(socket_path) as wire:
        while not select.select([sys.stdin], [], [], 0)[0]:
            number += 1
            wire.create(f"busy{number}", parent)
            if number == 1:
                print("sending", flush=True)
            wire.apply(f"busy{number}", parent, layer)
            wire.remove(f"busy{number}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
