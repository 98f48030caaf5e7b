"""Build the wheels that a machine installs, on the controller: `build_wheels.py SOURCE FOLDER`.

SOURCE is this repository.  Prints the folder below FOLDER that holds the plugin's wheel, those of
its locked dependencies for every Python, and a requirements.txt with all hashes.  Machines install
from that alone, so they need no package index.  The folder is named by a digest of what went into
it: the same source is built once, and a machine knows by the name what it has.

Easy to get wrong: half a folder.  It is made elsewhere and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List

_LOCK = "requirements/runtime.txt"
_METADATA = ("pyproject.toml", "README.md", "LICENSE")
# A pin, a marker perhaps, and hashes on lines of their own.
_PIN = re.compile(r"^([\w.-]+==[\w.]+)( ;[^\\\n]*)?((?:\s*\\\n\s+--hash=\S+)+)", re.MULTILINE)


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    if not (source / _LOCK).is_file():
        print(f"{source} is no checkout of manuka: it has no {_LOCK}", file=sys.stderr)
        return 1
    wheels = folder / digest(source)
    if not wheels.is_dir():
        try:
            build(source, wheels)
        except subprocess.CalledProcessError as error:
            print(f"{' '.join(error.cmd)} failed:\n{error.stdout}", file=sys.stderr)
            return 1
    print(wheels)
    return 0


def inputs(source: Path) -> Iterator[Path]:
    """What goes into the wheels, in a fixed order."""
    for name in (*_METADATA, _LOCK):
        yield source / name
    for path in sorted((source / "manuka").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def digest(source: Path) -> str:
    """Sixteen hex digits that are the same for the same inputs and this way of building."""
    result = hashlib.sha256(Path(__file__).read_bytes())
    for path in inputs(source):
        content = path.read_bytes()
        result.update(f"{path.relative_to(source)} {len(content)}\n".encode() + content)
    return result.hexdigest()[:16]


def build(source: Path, wheels: Path) -> None:
    wheels.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheels.parent, prefix=".making-") as making:
        # From a copy: a build leaves files in its source.
        copy, whole = Path(making, "source"), Path(making, "wheels")
        for path in inputs(source):
            target = copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        pip("wheel", "--no-deps", *isolation(), "--wheel-dir", str(whole), str(copy))
        lock = (source / _LOCK).read_text()
        download(lock, whole)
        (whole / "requirements.txt").write_text(lock + own_pin(next(whole.glob("manuka-*.whl"))))
        try:
            os.rename(whole, wheels)
        except OSError:
            if not wheels.is_dir():  # somebody else has just made the same
                raise


def download(lock: str, folder: Path) -> None:
    """Every pin on its own and without its marker, which would leave out other Pythons."""
    for requirement, _, hashes in _PIN.findall(lock):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
            one.write(requirement + hashes + "\n")
            one.flush()
            pip(
                *("download", "--no-deps", "--require-hashes", "--only-binary=:all:"),
                *("--ignore-requires-python", "--dest", str(folder), "-r", one.name),
            )


def own_pin(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def isolation() -> List[str]:
    """Builds with the setuptools that is installed here, and fetches one only if there is none."""
    there = all(importlib.util.find_spec(name) for name in ("setuptools", "wheel"))
    return ["--no-build-isolation"] if there else []


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
