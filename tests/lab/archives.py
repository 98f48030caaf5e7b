"""Signed archives of packages, as Ubuntu, Debian and Docker have them, below a folder.

The packages are empty but for docker.service; their names and versions are real ones, so that apt
decides about them as it would.  Easy to get wrong: apt fetches as a user of its own, who has to be
able to read the folder.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

_UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"


class Signer:
    """A key of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self._gpg = ["gpg", "--batch", "--quiet", "--homedir", str(folder), "--passphrase", ""]
        self._run("--quick-gen-key", "archive@example.org", "rsa2048", "sign", "never")
        self.key = self._run("--armor", "--export")

    def sign(self, text: str) -> str:
        return self._run("--clearsign", "--digest-algo", "SHA512", stdin=text)

    def close(self) -> None:
        """End the agent that gpg has started."""
        subprocess.run(["gpgconf", "--homedir", self._gpg[4], "--kill", "gpg-agent"], check=True)

    def _run(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*self._gpg, *arguments], input=stdin, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def package(folder: Path, name: str, version: str) -> str:
    """Builds a package into the folder; returns its paragraph of the index, without Filename."""
    architecture = _output("dpkg", "--print-architecture")
    fields = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
    fields += "Maintainer: A <a@example.org>\nDescription: for a test\n"
    tree = folder / "tree" / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(fields)
    if name in ("docker-ce", "docker.io"):
        (tree / "lib/systemd/system").mkdir(parents=True)
        (tree / "lib/systemd/system/docker.service").write_text(_UNIT)
    deb = folder / f"{name}_{version.replace(':', '.')}.deb"
    _output("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb))
    content = deb.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{fields}Size: {len(content)}\nSHA256: {digest}\nFilename: {deb.name}\n"


def archive(root: Path, suite: str, component: str, packages: dict, signer: Signer) -> None:
    """A suite below `root`: {name: [versions]}."""
    pool = root / "pool" / suite
    pool.mkdir(parents=True)
    paragraphs = [package(pool, name, v) for name, versions in packages.items() for v in versions]
    index = "\n".join(paragraphs).replace("Filename: ", f"Filename: pool/{suite}/")
    architecture = _output("dpkg", "--print-architecture")
    place = f"{component}/binary-{architecture}/Packages"
    (root / "dists" / suite / place).parent.mkdir(parents=True)
    (root / "dists" / suite / place).write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = (
        f"Suite: {suite}\nCodename: {suite}\nArchitectures: {architecture}\n"
        f"Components: main universe stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"SHA256:\n {digest} {len(index)} {place}\n"
    )
    (root / "dists" / suite / "InRelease").write_text(signer.sign(release))
    for path, _, _ in os.walk(root):
        os.chmod(path, 0o755)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
