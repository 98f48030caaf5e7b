"""A place where Vagrant runs and is seen by nobody, and a copy of this repository in it.

`packages`, `private` and `box` beside this file do the work. Easy to get wrong: the machine is made
once, and needs minutes; tests that change it say so, and come in the order of the file.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

# Of the caller's, these would lead Vagrant, Ansible or libvirt elsewhere.
FOREIGN = re.compile(r"(ANSIBLE|DOCKER|LIBVIRT|MACHINES?|MANUKA|VAGRANT|VIRSH)(_|$)")

# For a machine that is slow and thrown away, and whose console is wanted if it does not come up.
# Vagrant reads it before the repository's Vagrantfile.
VAGRANTFILE = """
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 1800
  config.vm.provider :libvirt do |libvirt|
    libvirt.disk_driver cache: "unsafe"
    # Its second serial port; `libvirt.serial`, for the first, fails beside a project's Vagrantfile.
    console = File.join(ENV["VAGRANT_HOME"], "console")
    ["-chardev", "file,id=console,path=#{console}",
     "-device", "isa-serial,index=1,chardev=console"].each do |argument|
      libvirt.qemuargs value: argument
    end
  end
end
"""

# A shell starts what it puts in the background deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Far above what any command needs, here or on a slow machine; ends what hangs.
LIMIT = 3600


def clean_environment():
    """The caller's, with the programs of this Python first."""
    kept = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}:/usr/sbin:/sbin"}


def run(*command, env, cwd=REPOSITORY):
    """What a command that has to succeed prints; the test's own output has it, too."""
    print("$", *command, flush=True)
    done = subprocess.run(
        [str(word) for word in command], env=env, cwd=str(cwd), timeout=LIMIT, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    print(re.sub(r"\r\x1b\[K[^\r\n]*", "", done.stdout), flush=True)  # less what moves
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}"
    return done.stdout


@pytest.fixture(scope="session")
def packages():
    """What the tests need is installed."""
    run(HERE / "packages", env=clean_environment())


@pytest.fixture(scope="session")
def vagrant_environment(packages, tmp_path_factory):
    """Environment of a Vagrant that has boxes, plugins and caches of its own."""
    home = tmp_path_factory.mktemp("home")
    (home / "vagrant").mkdir()
    (home / "vagrant/Vagrantfile").write_text(VAGRANTFILE)
    return {
        **clean_environment(),
        "VAGRANT_HOME": str(home / "vagrant"),
        "ANSIBLE_HOME": str(home / "ansible"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of this repository, so that no `.vagrant` of a user is touched."""
    copy = tmp_path_factory.mktemp("checkout") / "manuka"
    shutil.copytree(REPOSITORY, copy, symlinks=True, ignore=shutil.ignore_patterns(".*"))
    return copy


class Private:
    """Namespaces in which a libvirt of their own runs, from `private`, until `end`."""

    def __init__(self, environment):
        # The command in there ends with its input, so nothing outlives this process.
        self._holder = subprocess.Popen(
            [str(HERE / "private"), "sh", "-c", "echo ready; exec cat"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout.readline() == "ready\n"
        unshare = children(self._holder.pid)[0]
        self._first = children(unshare)[0]

    def run(self, *command, env, cwd):
        """`run`, in there."""
        namespaces = [f"--target={self._first}", "--mount", "--pid", "--net"]
        enter = ["nsenter", *namespaces, "env", f"--chdir={cwd}"]
        return run(*enter, *command, env=env, cwd="/")

    def processes(self):
        """Command lines of all that runs in there, by process number as seen from outside."""
        namespace = os.readlink(f"/proc/{self._first}/ns/pid")
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/pid") == namespace:
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
            except OSError:  # it has just ended
                continue
        return found

    def end(self):
        self._holder.stdin.close()
        assert self._holder.wait(LIMIT) == 0


def children(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.fixture(scope="session")
def private(vagrant_environment):
    place = Private(vagrant_environment)
    yield place
    place.end()
