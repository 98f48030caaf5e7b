"""SECURITY.md names the test that holds each claim: they are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Tuple

TESTS = Path(__file__).resolve().parents[1]
TEXT = (TESTS.parent / "SECURITY.md").read_text()


def named() -> List[Tuple[str, str]]:
    return re.findall(r"`([a-z0-9_/]+\.py): (test_\w+)`", TEXT)


def test_each_test_that_the_threat_model_names_exists() -> None:
    names = named()
    assert len(names) > 20
    for file, name in names:
        path = TESTS / file if "/" in file else TESTS / "hostile" / file
        assert f"def {name}(" in path.read_text(), f"{file}: {name}"


def test_the_unit_has_what_the_threat_model_says_of_it() -> None:
    unit = TESTS.parent / "ansible" / "roles" / "manuka" / "templates" / "manuka.service.j2"
    lines = unit.read_text().splitlines()
    table = TEXT.split("## What the systemd unit takes away")[1].split("\n\nIt has no mount")[0]
    settings = re.findall(r"`([A-Z]\w+=[\w-]*)`", table)
    assert len(settings) > 8
    for setting in settings:
        assert any(line.startswith(setting) for line in lines), setting
    assert not any(line.startswith(("Private", "Protect", "DynamicUser")) for line in lines)
