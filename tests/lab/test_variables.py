"""The roles' variables: what is documented, what is checked and what is taken are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "ansible" / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir())

# Their defaults are worked out; the README says what comes out.
COMPUTED = {"manuka_source": "this repository", "manuka_wheels_folder": "`~/.cache/manuka/wheels`"}


def load(role: str, path: str) -> dict:
    return yaml.safe_load((ROLES / role / path).read_text()) or {}


def options(role: str) -> dict:
    return load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def rows(role: str) -> dict:
    """Variable to default and meaning, of the README's table."""
    table = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+) \|$", (ROLES / role / "README.md").read_text(), re.M
    )
    return {name: (default, meaning) for name, default, meaning in table}


def markdown(option: dict) -> str:
    text = option["description"]
    text = " ".join(text) if isinstance(text, list) else text
    if "choices" in option:
        text += (
            " One of: "
            + ", ".join(f"`{choice}`" if choice else '`""`' for choice in option["choices"])
            + "."
        )
    return re.sub(r"C\((.*?)\)", r"`\1`", text)


def shown(value: object) -> str:
    if isinstance(value, list):
        return "`[" + ", ".join(map(str, value)) + "]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return '`""`' if value == "" else f"`{value}`"


@pytest.mark.parametrize("role", NAMES)
def test_each_default_is_a_variable_that_is_checked(role: str) -> None:
    assert set(load(role, "defaults/main.yml")) == set(options(role))


@pytest.mark.parametrize("role", NAMES)
def test_the_default_that_is_documented_is_the_one_that_is_taken(role: str) -> None:
    taken = {k: v for k, v in load(role, "defaults/main.yml").items() if k not in COMPUTED}
    said = {k: v["default"] for k, v in options(role).items() if k not in COMPUTED}
    assert said == taken


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_has_each_variable_with_its_default_and_meaning(role: str) -> None:
    expected = {
        name: (COMPUTED.get(name) or shown(option["default"]), markdown(option))
        for name, option in options(role).items()
    }
    assert rows(role) == expected


@pytest.mark.parametrize("role", NAMES)
def test_variables_carry_their_roles_name(role: str) -> None:
    names = {*load(role, "defaults/main.yml"), *load(role, "vars/main.yml")}
    assert {name for name in names if not name.startswith(f"{role}_")} == set()
