"""Throw-away copies of this machine's root, each dressed up as a release, and plays on them.

A root is an overlay on `/` in a private mount namespace, so that a play can really change it; it
says that it is the release, and has neither engine nor apt sources.  Ansible enters it by chroot,
and finds out about it as it does anywhere.  What it lacks is a systemd that runs.

The second half of this file is what runs inside the namespace: `roots.py SPEC`.  Easy to get wrong:
this machine's own engine and its data, which have to be out of sight.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

#: Release to code name and what /etc/debian_version has, or None.
RELEASES = {
    "Ubuntu 18.10": ("cosmic", None),
    "Ubuntu 20.04": ("focal", None),
    "Ubuntu 22.04": ("jammy", None),
    "Ubuntu 24.04": ("noble", None),
    "Debian 11": ("bullseye", "11.11"),
    "Debian 12": ("bookworm", "12.9"),
    "Debian 13": ("trixie", "13.1"),
}

#: What dpkg has of this machine's packages; the fewer, the sooner Ansible has read them.
PACKAGES = ("ca-certificates", "kmod", "python3", "python3-apt", "dpkg", "apt", "libc6")


def why_none() -> str:
    """Why no root can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "root is needed for mounts"
    if not os.path.exists("/usr/lib/python3/dist-packages/apt/__init__.py"):
        return "Ansible needs the package python3-apt"
    if shutil.which("gpg") is None:
        return "the package gnupg is needed to sign an archive"
    return ""


def play(folder: Path, playbook: str, roots: dict, *arguments: str) -> dict:
    """Runs a playbook on roots: {name: {"release", "vars", "files"}}.  Host to its outcome:
    `changed` and `ok` are lists of tasks, `failed` is the message, `files` are texts of those
    that are named in "read", and `said` is what the commands in "say" say after the play.
    """
    hosts = {
        name: {
            "ansible_connection": "community.general.chroot",
            "ansible_host": str(folder / "roots" / name),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_become": False,
            "manuka_wheels_folder": str(folder / "wheels"),
            **root.get("vars", {}),
        }
        for name, root in roots.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inventory.json").write_text(json.dumps({"docker_hosts": {"hosts": hosts}}))
    spec = {
        "folder": str(folder),
        "roots": roots,
        "command": [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory", str(folder / "inventory.json"), "--forks", "4", playbook, *arguments),
        ],
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private",
         sys.executable, __file__, str(folder / "spec.json")],
        cwd=ROOT / "ansible", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=1500,
        env={**os.environ, "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
             "ANSIBLE_CALLBACKS_ENABLED": "outcome", "ANSIBLE_GATHER_SUBSET": "!all",
             "LAB_OUTCOME": str(folder / "outcome.json")},
    )  # fmt: skip
    (folder / "log").write_text(done.stdout)
    assert (folder / "outcome.json").exists(), done.stdout[-4000:]
    outcome = json.loads((folder / "outcome.json").read_text())
    files = json.loads((folder / "files.json").read_text())
    said = json.loads((folder / "said.json").read_text())
    return {name: {**outcome[name], "files": files[name], "said": said.get(name)} for name in roots}


# --- inside the namespace -------------------------------------------------------------------------


def main(path: str) -> int:
    spec = json.loads(Path(path).read_text())
    folder = Path(spec["folder"])
    mount("-t", "tmpfs", "tmpfs", make(folder / "roots"))
    mount("-t", "tmpfs", "tmpfs", make(folder / "layers"))
    for name, root in spec["roots"].items():
        dress(make_root(folder, name), root)
    code = subprocess.run(spec["command"]).returncode
    read = {
        name: {path: text(folder / "roots" / name, path) for path in root.get("read", ())}
        for name, root in spec["roots"].items()
    }
    (folder / "files.json").write_text(json.dumps(read))
    said = {
        name: {key: say(folder / "roots" / name, command) for key, command in root["say"].items()}
        for name, root in spec["roots"].items()
        if "say" in root
    }
    (folder / "said.json").write_text(json.dumps(said))
    return code


def make_root(folder: Path, name: str) -> Path:
    upper, work, root = (
        make(folder / place) for place in (f"layers/{name}/u", f"layers/{name}/w", f"roots/{name}")
    )
    options = f"lowerdir=/,upperdir={upper},workdir={work}"
    mount("-t", "overlay", "overlay", "-o", options, root)
    mount("-t", "proc", "proc", root / "proc")
    mount("--rbind", "/dev", root / "dev")
    for place in ("var/lib/docker", "var/lib/apt/lists", "etc/docker", "etc/apt", "opt", "run"):
        mount("-t", "tmpfs", "tmpfs", make(root / place))
    for place in ("sources.list.d", "preferences.d", "apt.conf.d", "trusted.gpg.d"):
        make(root / "etc/apt" / place)
    for program in ("docker", "dockerd", "manuka"):
        for place in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"):
            (root / place / program).unlink(missing_ok=True)
    status = root / "var/lib/dpkg/status"
    heads = tuple(f"Package: {package}\n" for package in PACKAGES)
    kept = [one for one in status.read_text().split("\n\n") if f"{one}\n".startswith(heads)]
    paragraphs = "".join(f"{one}\n\n" for one in kept)
    # What they depend on is not known to this dpkg any more.
    related = r"^(Pre-Depends|Depends|Recommends|Suggests|Breaks|Conflicts|Replaces):.*\n"
    status.write_text(re.sub(related, "", paragraphs, flags=re.MULTILINE))
    return root


def dress(root: Path, spec: dict) -> None:
    distribution, version = spec["release"].split()
    codename, debian_version = RELEASES.get(spec["release"], ("none", None))
    for name in ("os-release", "lsb-release", "debian_version"):
        (root / "etc" / name).unlink(missing_ok=True)
    (root / "etc/os-release").write_text(
        f'PRETTY_NAME="{distribution} {version}"\nNAME="{distribution}"\nVERSION_ID="{version}"\n'
        f"ID={distribution.lower()}\nVERSION_CODENAME={codename}\n"
    )
    if debian_version:
        (root / "etc/debian_version").write_text(debian_version + "\n")
    for path, content in spec.get("files", {}).items():
        place = root / path[1:]
        make(place.parent)
        if content.startswith("-> "):
            place.symlink_to(content[3:])
        else:
            place.write_text(content)
            place.chmod(0o755 if content.startswith("#!") else 0o644)
    for path, source in spec.get("folders", {}).items():
        mount("--bind", source, make(root / path[1:]))


def say(root: Path, command: str) -> str:
    done = subprocess.run(
        ["chroot", str(root), "sh", "-c", command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    return done.stdout


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def make(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def text(root: Path, path: str) -> str | None:
    """The file's text; a link is one within the root."""
    place = root / path[1:]
    if place.is_symlink():
        return text(root, os.path.join(os.path.dirname(path), os.readlink(place)))
    return place.read_text() if place.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
