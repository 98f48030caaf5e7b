"""A machine with systemd, as a container, and ansible-playbook's runs of site.yml on it.

For what cannot be seen on rendered files: what is left when a play is cut off or an engine does not
start.  The engine that holds the machines is the one that `docker` reaches; the image is the one
that Molecule's scenarios use (`molecule/machine bookworm` makes it).

Easy to get wrong: a machine's /var/lib/docker has to be a volume, as overlays cannot be stacked.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("MANUKA_LAB_MACHINE", "manuka-machine:bookworm")

_OPTIONS = [
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "host"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--volume", "/var/lib/docker"),
    *("--stop-signal", "SIGRTMIN+3"),
]


def why_none() -> str:
    """Why no machine can be made here; empty if one can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    command = ["docker", "image", "inspect", IMAGE]
    if subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
        return f"no engine with the image {IMAGE} answers (molecule/machine makes it)"
    return ""


class Machine:
    """One machine.  `remove` it at the end."""

    def __init__(self, folder: Path) -> None:
        self.name = f"manuka-lab-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        _docker("run", "--detach", "--name", self.name, "--hostname", self.name, *_OPTIONS, IMAGE)
        until_up = "until systemctl is-system-running --wait; do sleep 1; done"
        self.run("timeout", "120", "sh", "-c", until_up, check=False)

    def remove(self) -> None:
        _docker("rm", "--force", "--volumes", self.name)

    def run(self, *command: str, check: bool = True, stdin: bytes = b"") -> str:
        """What the command prints on the machine."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.name, *command],
            input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
        )  # fmt: skip
        output = done.stdout.decode(errors="replace").strip()
        assert not check or done.returncode == 0, f"{command} on {self.name}:\n{output}"
        return output

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}", stdin=text.encode())

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def driver(self) -> str:
        return self.run("docker", "info", "--format", "{{.Driver}}", check=False)

    def load_image(self, name: str) -> None:
        """An image of the machine's own busybox alone."""
        busybox = shutil.which("busybox")
        assert busybox is not None, "busybox-static is needed"
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.add(busybox, "bin/busybox")
        self.run("docker", "import", "-", name, stdin=file.getvalue())

    def start_play(self, *arguments: str, **variables: object) -> subprocess.Popen[str]:
        """ansible-playbook at work on this machine, in a process group of its own."""
        inventory = self._folder / f"{self.name}.json"
        host = {
            "ansible_connection": "community.docker.docker",
            "ansible_python_interpreter": "/usr/bin/python3",
            **variables,
        }
        inventory.write_text(json.dumps({"docker_hosts": {"hosts": {self.name: host}}}))
        playbook = str(Path(sys.executable).with_name("ansible-playbook"))
        return subprocess.Popen(
            [playbook, "--inventory", str(inventory), "site.yml", *arguments],
            cwd=ROOT / "ansible", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def play(self, *arguments: str, **variables: object) -> Play:
        process = self.start_play(*arguments, **variables)
        output, _ = process.communicate(timeout=1800)
        return Play(process.returncode, output)


class Play:
    """A run of site.yml that has ended."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output

    @property
    def text(self) -> str:
        """The output without line ends, which Ansible puts into its messages."""
        return " ".join(self.output.replace("\\n", " ").split())

    def recap(self, key: str) -> int:
        """A figure of the last line: ok, changed, unreachable, failed, rescued..."""
        last = self.output.split("PLAY RECAP")[-1]
        return int(last.split(f"{key}=")[1].split()[0])

    def expect_ok(self) -> Play:
        assert self.code == 0, self.output[-6000:]
        return self

    def expect_failure(self) -> Play:
        assert self.code != 0, self.output[-6000:]
        return self


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
