"""The benchmark's parts: arguments, turns, what it sends, and what it reads of processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import List, Tuple

import pytest

from manuka.cli import main
from manuka.toolkit.bench import archives, processes
from manuka.toolkit.bench.disk import MB, BenchError, Disk, Disks
from manuka.toolkit.bench.results import Results
from manuka.toolkit.bench.rows import ROWS
from manuka.toolkit.bench.scenarios import full, quick
from manuka.toolkit.bench.turns import Stopwatch, order, take_turns
from manuka.toolkit.bench.wire import PARTS

# --- arguments -----------------------------------------------------------------------------------


def test_the_figures_are_listed_by_the_names_that_only_takes(
    capsys: pytest.CaptureFixture,
) -> None:
    assert main(["bench", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(ROWS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--only", "run", "nonsense"], "there is no figure 'nonsense'"),
        (["--go", "/no/such/plugin"], "there is no program /no/such/plugin"),
        (["--json", "/no/such/folder/x.json"], "there is no folder"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(
    capsys: pytest.CaptureFixture, arguments: List[str], reason: str
) -> None:
    assert main(["bench", *arguments]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_rounds_are_a_number(count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--rounds", count])
    assert ended.value.code == 2


def test_an_earlier_report_is_shown_and_written_again(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    results = Results()
    results.add("run", "native", 0, 0.2)
    results.add("run", "manuka", 0, 0.2)
    earlier, again, picture = (tmp_path / name for name in ("a.json", "b.json", "c.svg"))
    earlier.write_text(results.to_json())
    arguments = ["--from", str(earlier), "--json", str(again), "--svg", str(picture)]
    assert main(["bench", *arguments]) == 0
    assert ROWS["run"].title in capsys.readouterr().out
    assert json.loads(again.read_text()) == json.loads(earlier.read_text())
    assert picture.read_text().startswith("<svg")


def test_a_run_with_failures_is_no_success(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    results = Results()
    results.failures.append("pull: it broke")
    (tmp_path / "a.json").write_text(results.to_json())
    assert main(["bench", "--from", str(tmp_path / "a.json")]) == 1
    assert "it broke" in capsys.readouterr().out


def test_a_run_that_was_ended_early_says_so_in_every_report(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    results = Results()
    for name in ("native", "manuka"):
        results.add("run", name, 0, 0.2)
    results.interrupted = "SIGTERM"
    json_file, svg, page = (tmp_path / name for name in ("a.json", "b.svg", "c.md"))
    json_file.write_text(results.to_json())
    reports = ["--svg", str(svg), "--markdown", str(page), "--json", str(json_file)]
    assert main(["bench", "--from", str(json_file), *reports]) == 1
    warning = "interrupted by SIGTERM: these are not all figures"
    said = capsys.readouterr().out
    assert said.startswith(warning)
    assert said.endswith(warning + "\n")
    assert warning in svg.read_text()
    assert page.read_text().startswith(f"**{warning}**")
    assert json.loads(json_file.read_text())["interrupted"] == "SIGTERM"


def test_an_engine_that_is_not_there_is_told(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--quick", "--engine", "/no/such/dockerd"]) == 1
    assert "there is no engine at /no/such/dockerd" in capsys.readouterr().err


# --- what is measured ----------------------------------------------------------------------------


def test_every_row_is_measured_by_somebody() -> None:
    measured = {row for scenario in full(None) for row in scenario.rows}
    measured |= {row for part in PARTS for row in part.rows}
    others = {"pull-many", "memory-engine", "cpu-engine", "idle", "start", "start-python"}
    assert measured | others == set(ROWS)


def test_a_quick_run_measures_rows_of_the_full_one() -> None:
    assert {row for scenario in quick() for row in scenario.rows} <= set(ROWS)


def test_another_contender_begins_each_round() -> None:
    assert [order("abc", number) for number in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip
    turns: List[Tuple[str, int]] = []
    take_turns("ab", 2, True, lambda name, number: turns.append((name, number)))
    assert turns == [("b", -1), ("a", -1), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]


def test_the_warm_up_leaves_no_figure_and_milliseconds_are_such(tmp_path: Path) -> None:
    results = Results()
    disk = Disk(str(tmp_path), "")
    for number in (-1, 0):
        watch = Stopwatch(results, "manuka", number, disk)
        with watch.measure("exists"), watch.measure("run"):
            os.getpid()
    assert len(results.rounds(ROWS["exists"], "manuka")) == 1
    in_ms, in_s = (results.figure(ROWS[name], "manuka") for name in ("exists", "run"))
    assert in_ms is not None
    assert in_s is not None
    assert in_ms > in_s * 900


# --- what contenders are given -------------------------------------------------------------------


def read(stream: archives.Stream) -> tarfile.TarFile:
    content = b"".join(stream)
    assert len(content) == stream.size
    return tarfile.open(fileobj=io.BytesIO(content))


def test_the_layer_of_many_files_is_what_its_title_says() -> None:
    layer = archives.many_files(folders=10)
    with read(layer) as tar:
        members = tar.getmembers()
    assert len(members) == 10 * (archives.MANY_IN_EACH + 1)
    assert archives.MANY_ENTRIES == 35_500
    # 226 MB for all folders; few of them scatter.
    assert layer.size * archives.MANY_FOLDERS / 10 == pytest.approx(226e6, rel=0.15)
    assert archives.many_files(folders=10).digest() == layer.digest()


def test_one_large_file_is_as_large_as_told() -> None:
    with read(archives.one_file(3_000_000)) as tar:
        (member,) = tar.getmembers()
        assert 3_000_000 <= member.size < 3_000_000 + (1 << 20)
        data = tar.extractfile(member)
        assert data is not None
        assert len(data.read()) == member.size


def test_an_image_names_its_layers_by_their_digests() -> None:
    layers = archives.deep(3, seed=5)
    with read(archives.image("deep:1", layers)) as tar:
        parts = {}
        for member in tar.getmembers():
            data = tar.extractfile(member)
            assert data is not None
            parts[member.name] = data.read()
    (manifest,) = json.loads(parts["manifest.json"])
    assert [parts[name] for name in manifest["Layers"]] == [b"".join(layer) for layer in layers]
    told = json.loads(parts["config.json"])["rootfs"]["diff_ids"]
    assert told == [layer.digest() for layer in layers]
    assert len(set(told)) == 3
    assert not set(told) & {layer.digest() for layer in archives.deep(3, seed=6)}


# --- processes -----------------------------------------------------------------------------------

WORK = """
import subprocess, sys, time
print("ready", flush=True)
sys.stdin.readline()
block = bytearray(60_000_000)
end = time.process_time() + 0.3
while time.process_time() < end: pass
child = subprocess.Popen(
    [sys.executable, "-c", "b = bytearray(50_000_000); input(len(b))"], stdin=-1, stdout=-1
)
child.stdout.read(8)
time.sleep(1)
child.communicate(b"x")
print("done", flush=True)
sys.stdin.readline()
"""


def test_memory_and_cpu_of_a_process_and_its_children_are_taken() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdout.readline()
        with processes.Watch(worker.pid) as watch:
            worker.stdin.write(b"go\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == b"done\n"
        assert watch.peak > 110_000_000
        assert watch.cpu >= 0.3
    finally:
        worker.communicate(b"end\n")


def test_an_idle_process_takes_next_to_nothing() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        used = processes.idle_cpu({"sleep": child.pid}, 0.2)
        child.kill()
    assert 0 <= used["sleep"] < 5


# --- disks ---------------------------------------------------------------------------------------


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run something that changes this process's mount namespace."""
    return subprocess.run(
        [sys.executable, "-c", "from manuka.toolkit.bench.disk import *\n" + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,  # noqa: UP021 -- the oldest Python has no other name
        timeout=120,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_disks_are_seen_within_and_gone_afterwards() -> None:
    done = in_a_process(
        "import os\n"
        "with Disks(0, []) as disks:\n"
        "    disk = disks.make('one', 50 * MB)\n"
        "    with open(disk.folder + '/file', 'wb') as file: file.write(bytes(10 * MB))\n"
        "    disk.settle(); full = disk.memory; os.unlink(file.name); disk.trim()\n"
        "    print(os.path.ismount(disk.folder), full - disk.memory >= 9 * MB)\n"
        "    print(disk.folder in open('/proc/1/mounts').read())\n"
        "print(os.path.exists(disk.folder))\n"
    )
    if "no loop device" in done.stdout:
        pytest.skip(done.stdout)
    assert done.stdout.split() == ["True", "True", "False", "False"], done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for first")
def test_too_little_memory_is_told_with_how_much_is_needed() -> None:
    with pytest.raises(BenchError, match=r"needs 900000000 MB of it, but only \d+ MB"):
        Disks(900_000_000 * MB, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for first")
def test_a_folder_that_is_needed_is_not_covered() -> None:
    with pytest.raises(BenchError, match="no folder to mount on"):
        Disks(0, ["/mnt/engine", "/media", "/srv/a/b", "/opt/go"])
