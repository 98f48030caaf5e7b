"""One call as it was recorded, and the file of such calls: one JSON object a line.

Easy to get wrong: calls end in another order than they began; `number` counts beginnings, lines are
written at ends.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, NamedTuple, Optional
from urllib.parse import parse_qs

from manuka.errors import ManukaError


class RecordingError(ManukaError):
    """A file that is no recording."""


class Call(NamedTuple):
    """One request with its reply.

    number: counts requests from 1 in the order of their first byte.
    connection: counts the engine's connections from 1.
    name: such as ``GraphDriver.Get``.
    query: what is behind the ``?`` of the target, if anything.
    began: seconds since the epoch.
    took: seconds until the reply's last byte.
    request: the JSON message; None where the body is none (ApplyDiff), or empty.
    received, sent: bytes of the request's and of the reply's body.
    status: of the reply; None: there was none.
    reply: its JSON message; None where the body is none (Diff).
    error: the ``Err``, or what went wrong on the way; None: nothing.
    """

    number: int
    connection: int
    name: str
    query: str
    began: float
    took: float
    request: Optional[Dict[str, Any]]
    received: int
    status: Optional[int]
    reply: Optional[Dict[str, Any]]
    sent: int
    error: Optional[str]

    @property
    def layer_id(self) -> Optional[str]:
        """The layer that it is about; None: none."""
        return self._field("ID", "id")

    @property
    def parent(self) -> Optional[str]:
        """The parent that it names."""
        return self._field("Parent", "parent")

    def to_json(self) -> str:
        return json.dumps(self._asdict())

    def _field(self, in_message: str, in_query: str) -> Optional[str]:
        value = (self.request or {}).get(in_message)
        if value is None:
            value = parse_qs(self.query).get(in_query, [None])[0]
        return value or None


def read(path: str) -> Iterator[Call]:
    """The calls in a recording, in the order of their ends.  Raises RecordingError, OSError."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                fields = json.loads(line)
                yield Call(**fields)
            except (ValueError, TypeError) as error:
                raise RecordingError(
                    f"{path}, line {number}: no call as manuka trace records it ({error})"
                ) from None
