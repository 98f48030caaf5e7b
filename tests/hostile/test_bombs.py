"""Tars that ask for much: time stays proportional to them, and memory does not grow with them.

What the processor was busy for is compared and not what a clock says: a loaded machine is no
fault of the code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple

import pytest

from tests.hostile import bombs
from tests.unit.mounts import mounted, needs_root
from tests.unit.stacks import apply, create, overlay2

pytestmark = needs_root

ROOT = Path(__file__).resolve().parents[2]
WAYS = ["auto", "naive"]

#: Beyond what Python and a driver need anyway.
MOST_MEMORY = 24 << 20

#: A million on request: MANUKA_ENTRIES=1000000.
MANY = int(os.environ.get("MANUKA_ENTRIES", "100000"))

#: Seconds that a bomb may take, also on a busy machine: for the usual number of entries, and more.
LIMIT = 280 * max(1, MANY // 100000)


class Took(NamedTuple):
    seconds: float
    memory: int
    error: str


def run(tmp_path: Path, bomb: str, *amounts: int, way: str = "auto") -> List[Took]:
    """Apply a bomb in each of these sizes, in a process of its own, on a disk in memory."""
    with mounted(tmp_path / "disk", data="size=8g,nr_inodes=4m") as disk:
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.hostile.bombs",
                bomb,
                json.dumps(amounts),
                way,
                str(disk),
            ],
            cwd=str(ROOT),
            stdout=subprocess.PIPE,
            timeout=LIMIT,
            check=True,
        )
    return [Took(*each) for each in json.loads(result.stdout.decode())]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("bomb", "amount"),
    [
        ("files_in_two_folders_by_turns", 400),
        ("one_file_again_and_again", 400),
        ("a_folder_and_a_file_by_turns", 100),
        ("opaque_marks_upon_files", 300),
        ("opaque_marks_from_the_bottom_up", 150),
        ("opaque_marks_from_the_top_down", 150),
        ("whiteouts", 300),
        ("hard_links", 400),
        ("hard_links_to_lower_files", 150),
        ("attributes_that_links_cannot_have", 15),
        ("extended_headers", 200),
    ],
)
def test_eight_times_as_much_takes_no_more_than_thirty_times_as_long(tmp_path, bomb, amount, way):
    """Eight times would be right, and sixty-four is what a look at all of it for each would be."""
    _, little, much = run(tmp_path, bomb, amount, amount, 8 * amount, way=way)
    assert not little.error
    assert not much.error
    assert much.seconds < 30 * max(little.seconds, 0.01)
    assert much.memory < MOST_MEMORY


@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.parametrize("way", WAYS)
def test_many_entries_need_no_more_memory_than_few(tmp_path, way):
    (took,) = run(tmp_path, "files", MANY, way=way)
    assert not took.error
    assert took.memory < (MOST_MEMORY if way == "auto" else MOST_MEMORY + MANY * 300)


@pytest.mark.parametrize("way", WAYS)
def test_folders_nested_deeply_need_little_memory(tmp_path, way):
    """20,000 folders, whose paths alone would be 20 MB."""
    (took,) = run(tmp_path, "deep_folders", 40, way=way)
    assert not took.error
    assert took.memory < MOST_MEMORY


def test_a_file_below_two_thousand_lower_folders_takes_no_hours(tmp_path):
    (took,) = run(tmp_path, "another_file_down_there", 1900)
    assert not took.error
    assert took.seconds < 60


@pytest.mark.parametrize("way", WAYS)
def test_a_hard_link_to_an_exabyte_of_holes_copies_no_holes(tmp_path, way):
    with mounted(tmp_path / "disk") as disk, overlay2(disk, f"manuka.diff={way}") as driver:
        size = 1 << 60
        tars = [
            b"".join(bomb(size))
            for bomb in (bombs.a_sparse_file, bombs.a_hard_link_to_a_sparse_file)
        ]
        apply(driver, "lower", None, tars[0] + bombs.END)
        create(driver, "bomb", "lower")
        driver.apply_diff("bomb", "lower", bombs.Stream([tars[1]]))
        status = os.stat(disk / "home" / "bomb" / "diff" / "l")
        assert status.st_size == size
        assert status.st_blocks * 512 <= 4 << 20
        with open(disk / "home" / "bomb" / "diff" / "l", "rb") as file:
            assert file.read(1) == b"x"
            file.seek(-1, os.SEEK_END)
            assert file.read() == b"y"


def test_a_gigabyte_of_zeros_takes_neither_memory_nor_disk(tmp_path):
    (took,) = run(tmp_path, "zeros", 1024)
    assert not took.error
    assert took.memory < MOST_MEMORY
