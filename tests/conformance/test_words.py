"""Faults in words that authors of any language can read."""

from __future__ import annotations

import ast
import json
import tarfile

import pytest

from manuka.toolkit.client import BrokenReply, Refused
from manuka.toolkit.conformance.words import compared, reason, refused
from tests.conformance.runs import ROOT


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError("it is empty\nassert [] == [1]\n  Use -v to get more diff"), "it is empty"),
        (AssertionError("assert expected a, got b"), "expected a, got b"),
        (AssertionError("assert expected otherwise:\n  f is missing"), "f is missing"),
        (AssertionError("assert False\n +  where False = exists('x')"), "it does not hold"),
        (AssertionError(""), "it does not hold"),
        (KeyError("etc/passwd"), "etc/passwd is not there"),
        (FileNotFoundError(2, "No such file or directory", "/x/f"),
         "No such file or directory: /x/f"),
        (tarfile.ReadError("bad checksum"), "the plugin's tar cannot be read: bad checksum"),
        (json.JSONDecodeError("Expecting value", "", 0), "the plugin's reply cannot be read: "),
        (BrokenReply("GraphDriver.Get: the reply breaks off"),
         "GraphDriver.Get: the reply breaks off"),
    ],
)  # fmt: skip
def test_a_fault_is_told_without_python(error: BaseException, said: str) -> None:
    assert reason(error).startswith(said)
    assert "where" not in reason(error)


def test_what_should_have_been_refused_is_named() -> None:
    with pytest.raises(AssertionError) as failed, refused("Get of an unknown layer"):
        pass
    assert reason(failed.value) == (
        "Get of an unknown layer was accepted; it has to be answered with an error"
    )
    with refused("Get of an unknown layer", Refused) as errors:
        raise Refused("GraphDriver.Get", 500, "no")
    assert [str(error) for error in errors] == ["GraphDriver.Get was refused (status 500): no"]


def test_an_error_that_did_not_come_is_told_in_words_also_where_pytest_noticed() -> None:
    with pytest.raises(pytest.fail.Exception) as failed, pytest.raises(Refused):
        pass
    assert reason(failed.value) == "a call was accepted that has to be answered with an error"


def test_trees_are_compared_by_what_differs() -> None:
    expected = {"a": {"mode": "0o644", "size": 3}, "b": {"mode": "0o755"}, "d": {"mode": "0o1"}}
    found = {"a": {"mode": "0o600", "size": 3}, "c": {"mode": "0o755"}, "d": {"mode": "0o1"}}
    assert compared("==", found, expected) == [
        "expected otherwise:",
        "a: mode is 0o600, expected 0o644",
        "b is missing",
        "c is there, and should not be",
    ]


def test_attributes_and_values_are_told_without_python() -> None:
    expected = {"a b": {"xattrs": {"user.note": b"x", "user.odd": b"\xff"}, "links": ["a", "b"]}}
    assert compared("==", {"a b": {"xattrs": {"user.odd": b"y"}}}, expected) == [
        "expected otherwise:",
        "'a b': links is none, expected [a, b]",
        "'a b': user.note is none, expected x",
        r"'a b': user.odd is y, expected '\\xff'",
    ]
    assert compared("==", None, True) == ["expected true, got none"]
    assert compared("==", {"f": b"1"}, {}) == [
        "expected otherwise:", "f is there, and should not be"
    ]  # fmt: skip


def test_a_long_comparison_stays_short() -> None:
    lines = compared("==", {}, {f"file-{number}": 1 for number in range(1000)})
    assert len(lines) <= 7
    assert lines[-1] == "and 995 more"
    assert len("".join(compared("==", "x" * 9000, "y"))) < 300


def test_every_assertion_of_a_check_can_be_told_in_words() -> None:
    """One that is no comparison needs a message: of it pytest would show the Python."""
    for path in sorted((ROOT / "manuka/toolkit/conformance").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert) and node.msg is None and "check_" in path.name:
                assert isinstance(node.test, ast.Compare), f"{path.name}:{node.lineno}"
