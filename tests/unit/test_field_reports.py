"""The page of field reports names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "field-reports.md"

SHORT = {
    "layers": "parity/test_field.py::test_it_comes_out_as_on_overlay2",
    "containers": "parity/test_field_containers.py::"
    "test_what_a_container_does_comes_out_as_on_overlay2",
    "successive": "parity/test_field_containers.py::"
    "test_containers_of_committed_containers_are_as_on_overlay2",
}


def rows():
    """Each row of each table by what it is about, with the cells behind."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 5 and cells[0] not in ("reports", "---"):
            yield pytest.param(cells[4], id=cells[1])


@pytest.mark.parametrize("tests", list(rows()))
def test_each_row_names_tests_that_exist(tests):
    named = re.findall(r"`([^`]+)`", tests)
    assert named != []
    for name in named:
        test, _, case = name.partition("[")
        path, _, function = SHORT.get(test, test).partition("::")
        text = (TESTS / path).read_text(encoding="utf-8")
        assert f"def {function}(" in text, f"{path} has no {function}"
        assert not case or f'"{case[:-1]}"' in text, f"{path} has no case {case[:-1]}"


def test_the_page_has_the_reports():
    assert len(list(rows())) >= 80
