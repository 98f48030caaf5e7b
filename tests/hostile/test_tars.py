"""Each hostile tar comes out as the table says, in both ways, and nothing around it changes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Union

import pytest

from manuka.errors import ManukaError
from manuka.overlay2 import Overlay2
from tests.hostile.tars import ROWS, Outcome, Refused, Row, described, lower
from tests.layertar import LayerTar
from tests.snapshot import Snapshot, snapshot
from tests.unit.mounts import needs_root
from tests.unit.stacks import apply, create, overlay2

pytestmark = needs_root

LONGEST_ERROR = 1000


class Place(NamedTuple):
    """A driver with layers, and a folder outside."""

    folder: Path
    driver: Overlay2
    naive: bool

    @property
    def outside(self) -> str:
        return str(self.folder / "outside")

    @property
    def layer(self) -> str:
        return str(self.folder / "home" / "hostile" / "diff")

    def surroundings(self) -> Snapshot:
        """All but the hostile layer, of which the kernel has a part and the driver a mark."""
        return {
            path: record
            for path, record in snapshot(self.folder).items()
            if not path.startswith(("home/hostile/diff/", "home/hostile/work"))
            and path not in ("home/hostile", "home/hostile/merged", "home/hostile/unpacking")
        }

    def expected(self, row: Row) -> Outcome:
        outcome = row.naive if self.naive and row.naive is not None else row.comes_out
        inside = self.outside.lstrip("/")
        if isinstance(outcome, Refused):
            return Refused(outcome.text.replace("OUT", inside))
        found = {path.replace("OUT", inside): what for path, what in outcome.items()}
        if any("OUT" in path for path in outcome):
            for above in Path(inside).parents:
                found[str(above)] = "folder"
            del found["."]
        return {path: what.replace("OUT", inside) for path, what in sorted(found.items())}


@pytest.fixture(scope="module", params=["auto", "naive"])
def place(request, tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_text("secret")
    with overlay2(folder, f"manuka.diff={request.param}") as driver:
        place = Place(folder, driver, request.param == "naive")
        apply(driver, "lower", None, lower(place.outside))
        apply(driver, "sibling", "lower", LayerTar().file("f", b"sibling"))
        yield place


def outcome_of(place: Place, tar: bytes) -> Union[str, Dict[str, str]]:
    try:
        place.driver.apply_diff("hostile", "lower", io.BytesIO(tar))
    except ManukaError as error:
        return str(error)
    return described(place.layer)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_hostile_tar_comes_out_as_it_has_to_and_nothing_else_changes(place: Place, row: Row):
    tar, expected = row.tar(place.outside), place.expected(row)
    create(place.driver, "hostile", "lower")
    try:
        before = place.surroundings()
        found = outcome_of(place, tar)
        after = place.surroundings()
        if isinstance(expected, Refused):
            assert isinstance(found, str), f"it was taken: {found}"
            assert found.startswith(expected.text)
            assert found.isprintable()
            assert len(found) < LONGEST_ERROR
        else:
            assert found == expected
        for field in ("mtime_ns", "xattrs"):  # the kernel gives it a UUID when it is mounted
            before["home/hostile/diff"].pop(field, None)
            after["home/hostile/diff"].pop(field, None)
        assert after == before
    finally:
        place.driver.remove("hostile")
    assert "hostile" not in os.listdir(place.folder / "home")


def test_the_table_has_no_row_twice():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 180
