"""manuka.api.replies: an author's mistake is told in a sentence, and never sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from manuka.api import calls
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.driver import Change, Kind
from tests.unit.folder_driver import FolderDriver
from tests.unit.wire import Reply, Running, running


class Driver(FolderDriver):
    """Returns what a test puts there for a method's name."""

    returned: Dict[str, Any] = {}


def _returns(name: str) -> Any:
    def method(self: Driver, *arguments: object) -> Any:
        return self.returned[name]

    return method


CALLS = {
    "get": calls.GET,
    "exists": calls.EXISTS,
    "status": calls.STATUS,
    "metadata": calls.GET_METADATA,
    "changes": calls.CHANGES,
    "diff_size": calls.DIFF_SIZE,
    "diff": calls.DIFF,
    "apply_diff": calls.APPLY_DIFF,
}

for name in CALLS:
    setattr(Driver, name, _returns(name))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(make_app(DriverInstance(Driver, None))) as server:
        assert server.call(calls.INIT, {"Home": str(tmp_path / "home")}).status == 200
        yield server


def _reply(server: Running, method: str, returned: Any) -> Reply:
    Driver.returned = {method: returned}
    if method == "apply_diff":
        with server.wire() as wire:
            return wire.stream(calls.APPLY_DIFF + "?id=a&parent=", bytes(1024))
    return server.call(CALLS[method], {"ID": "a"})


WRONG: Tuple[Tuple[str, Any, str], ...] = (
    ("get", None, "None instead of the absolute path of a folder"),
    ("get", "layers/a", "'layers/a' instead of the absolute path of a folder"),
    ("get", b"/a", "b'/a' instead of the absolute path of a folder"),
    ("exists", None, "None instead of True or False"),
    ("exists", 1, "1 instead of True or False"),
    ("status", None, "None instead of pairs of strings"),
    ("status", {"a": "b"}, "{'a': 'b'} instead of pairs of strings"),
    ("status", [("Files", 3)], "[('Files', 3)] instead of pairs of strings"),
    ("metadata", None, "None instead of a dictionary of strings"),
    ("metadata", {"Layers": 3}, "{'Layers': 3} instead of a dictionary of strings"),
    ("changes", None, "None instead of a list of Change"),
    ("changes", ["/a"], "['/a'] instead of a list of Change"),
    ("changes", [("a", Kind.ADD)], "instead of changes with an absolute path and a Kind"),
    ("changes", [("/a", 3)], "('/a', 3) instead of changes with an absolute path and a Kind"),
    ("diff_size", None, "None instead of a number of bytes"),
    ("diff_size", -1, "-1 instead of a number of bytes"),
    ("apply_diff", None, "None instead of a number of bytes"),
    ("apply_diff", 0.5, "0.5 instead of a number of bytes"),
    ("diff", None, "None instead of an iterator of bytes"),
    ("diff", b"tar" * 99, "tarta... instead of an iterator of bytes"),
)


@pytest.mark.parametrize(("method", "returned", "said"), WRONG)
def test_what_an_engine_could_not_read_is_an_error_that_names_the_method(
    server: Running, method: str, returned: Any, said: str
) -> None:
    reply = _reply(server, method, returned)
    assert reply.status == 500
    assert reply.error.startswith(f"the driver's {method} gave ")
    assert reply.error.endswith(said)


@pytest.mark.parametrize(
    ("method", "returned", "reply"),
    [
        ("get", Path("/layers/a"), {"Dir": "/layers/a"}),
        ("status", (("a", "b"),), {"Status": [["a", "b"]]}),
        ("changes", (Change("/a", Kind.DELETE),), {"Changes": [{"Path": "/a", "Kind": 2}]}),
        ("changes", [], {"Changes": []}),
        ("apply_diff", 0, {"Size": 0}),
    ],
)
def test_what_can_be_read_goes_out(
    server: Running, method: str, returned: Any, reply: Dict[str, Any]
) -> None:
    assert _reply(server, method, returned).json == reply
