"""The lab's own engine, `lab.d/engine`: whose its files are, and whose word it takes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("dockerd", "docker", "slirp4netns", "unshare")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an engine")


class Engine:
    """One beside the lab's, for its name is made of the script's path."""

    def __init__(self, folder: Path) -> None:
        self.script = shutil.copy(str(ROOT / "lab.d" / "engine"), str(folder / "engine"))
        self.folder = Path(self("host").stdout.strip()[len("unix://") :]).parent

    def __call__(self, verb: str, umask: int = 0o022) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.script, verb],
            preexec_fn=lambda: os.umask(umask),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}")
    engine = Engine(tmp_path)
    yield engine
    engine("stop")
    assert not engine.folder.exists()


def _children(pid: int) -> List[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _open_to_others(paths: List[str], pid: int) -> List[str]:
    """As `tests.unit.others` has it, in the world where process `pid` is."""
    done = subprocess.run(
        ["nsenter", "--mount", "--target", str(pid), sys.executable,
         str(ROOT / "tests" / "unit" / "others.py")],
        input="\0".join(paths), stdout=subprocess.PIPE, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_others_can_neither_write_nor_read_what_it_made(engine: Engine, umask: int) -> None:
    engine("start", umask)
    (world,) = _children(int((engine.folder / "keeper").read_text()))
    top = Path(f"/proc/{world}/root{engine.folder}")
    inside = [
        os.path.join(place, name)[len(f"/proc/{world}/root") :]
        for place, folders, files in os.walk(str(top))
        for name in folders + files
    ]
    names = ["keeper", "log"]
    own = [*inside, *(str(engine.folder / name) for name in names), "/etc", "/run", "/opt"]
    found = _open_to_others(own, world)
    # Programs without rights have to read these.
    assert sorted(found) == ["r- /etc", "r- /opt", "r- /run"]
    for name in names:
        assert (engine.folder / name).stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("harm", ["chmod 0666", "chown 1000"])
def test_a_number_that_others_can_have_written_ends_no_process(engine: Engine, harm: str) -> None:
    keeper = subprocess.Popen(["sh", "-c", "sleep 300; exit", engine.script])
    try:
        engine.folder.mkdir(0o711)
        (engine.folder / "keeper").write_text(str(keeper.pid))
        subprocess.run([*harm.split(), str(engine.folder / "keeper")], check=True)
        engine("stop")
        assert keeper.poll() is None
        assert _children(keeper.pid), "its child was ended"
    finally:
        for child in _children(keeper.pid):
            os.kill(child, signal.SIGKILL)
        keeper.wait()
