"""Images for a sandbox, whose engine has none and reaches no registry.

`from_file` and `from_engine` look at what is named at once, so that a wrong name is told before a
sandbox is started for it; what they return puts the image into a sandbox, and gives its names.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zlib
from typing import Callable, List

from manuka.toolkit import busybox
from manuka.toolkit.namespace import SandboxError
from manuka.toolkit.sandbox import Sandbox

Source = Callable[[Sandbox], List[str]]

BUILT_IN = "busybox"

# What docker save writes at the top of its tar, in each of its formats.
_MARKS = frozenset(("manifest.json", "oci-layout", "repositories"))
_ZSTD = b"\x28\xb5\x2f\xfd"
_LOADED = re.compile(r"^Loaded image(?: ID)?: (\S+)$", re.MULTILINE)
_LONG = 3600  # seconds that a large image may take


def built_in() -> Source:
    """The static busybox of this machine, as the image ``busybox``; SandboxError without one."""
    program = busybox.find()

    def add(sandbox: Sandbox) -> list[str]:
        sandbox.docker("import", "-", BUILT_IN, input=busybox.image(program))
        return [BUILT_IN]

    return add


def from_file(path: str) -> Source:
    """The images in a tar of ``docker save``, or one that a root file system's tar is made into.

    The latter is called as the file, without its ending.  Raises SandboxError for anything else.
    """
    if _is_saved(path):
        return functools.partial(_load, path)
    name = re.sub(r"(\.(tar|tgz|gz|xz|bz2|txz))+$", "", os.path.basename(path).lower())
    name = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "image"

    def add(sandbox: Sandbox) -> list[str]:
        with open(path, "rb") as file:
            _feed(sandbox, ["docker", "import", "-", name], file.fileno(), path)
        return [name]

    return add


def from_engine(reference: str) -> Source:
    """An image of the machine's own engine; that called ``busybox`` may be the built-in one.

    Raises SandboxError when the engine has none of that name.
    """
    trouble = _trouble_with(reference)
    if trouble is None:
        return functools.partial(_copy, reference)
    if reference == BUILT_IN:
        return built_in()
    raise SandboxError(f"--image {reference}: {trouble}; or name a file: --load FILE")


def _is_saved(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SandboxError(f"--load: {path} is no regular file")
        with open(path, "rb") as file:
            if file.read(4) == _ZSTD:
                return True  # which engines since 23.0 read, and Python does not
        with tarfile.open(path) as tar:
            return any(entry.name.lstrip("./") in _MARKS for entry in tar)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        raise SandboxError(f"--load: {path} is no tar, or a damaged one") from None
    except OSError as error:
        raise SandboxError(f"--load: {path}: {error.strerror or error}") from None


def _load(path: str, sandbox: Sandbox) -> list[str]:
    with open(path, "rb") as file:
        said = _feed(sandbox, ["docker", "load"], file.fileno(), path)
    return _LOADED.findall(said) or [path]


def _copy(reference: str, sandbox: Sandbox) -> list[str]:
    with subprocess.Popen(
        ["docker", "save", reference],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as save:
        assert save.stdout is not None
        assert save.stderr is not None
        try:
            said = _feed(sandbox, ["docker", "load"], save.stdout.fileno(), reference)
        except SandboxError:
            save.stdout.close()
            save.kill()
            raise
        why = save.stderr.read().decode(errors="replace").strip()
    if save.returncode != 0:
        raise SandboxError(f"docker save {reference}: {why}")
    return _LOADED.findall(said) or [reference]


def _feed(sandbox: Sandbox, command: list[str], stdin: int, what: str) -> str:
    """Run a docker client in the sandbox on an open file; what it prints."""
    env = dict(sandbox.environment(), DOCKER_CONFIG=os.path.join(sandbox.data, "client"))
    child = sandbox.spawn(
        command, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = child.communicate(timeout=_LONG)
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.returncode != 0:
        said = err.decode(errors="replace").strip()
        raise SandboxError(f"{what} cannot be loaded: {said}")
    return out.decode(errors="replace")


def _trouble_with(reference: str) -> str | None:
    """Why the machine's engine cannot give an image; None: it can."""
    if shutil.which("docker") is None:
        return "there is no docker client on this machine"
    if reference.startswith("-"):
        return "this is no name of an image"
    done = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", reference],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if any("no such image" in line.lower() for line in said):
        return f"this machine's engine has no such image; docker pull {reference} first"
    return f"this machine's engine does not give it ({said[0] if said else 'no reason'})"
