"""The sixteen calls of the plugin interface, and what sets some of them apart on the wire.

`manuka.api.routes` answers them; `manuka.server` reads here which of them carry a stream and
which may take long.  Easy to get wrong: a call that takes long while it holds one of the few
pool threads delays every container start on the machine.
"""

from __future__ import annotations

ACTIVATE = "/Plugin.Activate"
INIT = "/GraphDriver.Init"
CAPABILITIES = "/GraphDriver.Capabilities"
CREATE = "/GraphDriver.Create"
CREATE_READ_WRITE = "/GraphDriver.CreateReadWrite"
REMOVE = "/GraphDriver.Remove"
GET = "/GraphDriver.Get"
PUT = "/GraphDriver.Put"
EXISTS = "/GraphDriver.Exists"
STATUS = "/GraphDriver.Status"
GET_METADATA = "/GraphDriver.GetMetadata"
CLEANUP = "/GraphDriver.Cleanup"
DIFF = "/GraphDriver.Diff"
CHANGES = "/GraphDriver.Changes"
APPLY_DIFF = "/GraphDriver.ApplyDiff"
DIFF_SIZE = "/GraphDriver.DiffSize"

#: Every call, in the order in which an engine comes to use them.
ALL = (
    ACTIVATE,
    INIT,
    CAPABILITIES,
    STATUS,
    CREATE,
    CREATE_READ_WRITE,
    APPLY_DIFF,
    EXISTS,
    GET,
    PUT,
    GET_METADATA,
    DIFF,
    CHANGES,
    DIFF_SIZE,
    REMOVE,
    CLEANUP,
)

#: Calls that move a layer, and last as long as the engine at the other end likes.
STREAMS = frozenset({APPLY_DIFF, DIFF})

#: Calls whose length depends on what a layer holds: each is served in a thread of its own.
LONG = STREAMS | {CHANGES, DIFF_SIZE, REMOVE, CLEANUP, INIT}

#: The largest JSON message taken, in bytes.  The engine's own are well under 1 KiB; an Init with
#: many id ranges and options may have a few.
MESSAGE_LIMIT = 1 << 20
