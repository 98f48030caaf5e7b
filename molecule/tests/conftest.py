"""What the tests of all scenarios share.  They look at machines from outside, as a user would."""

import json
import pathlib

import pytest

MAKE_IMAGE = pathlib.Path(__file__).parent.parent / "playbooks" / "make_image.sh"


@pytest.fixture(scope="module")
def run(host):
    """Runs a command that has to succeed, and returns what it prints."""

    def run_command(command, *arguments):
        return host.check_output(command, *arguments).strip()

    return run_command


@pytest.fixture(scope="module")
def image(run):
    """The name of an image of busybox alone."""
    run("sh -c %s", MAKE_IMAGE.read_text())
    return "busybox:local"


@pytest.fixture
def container(run, image):
    """The name of a new container that keeps running; removed afterwards."""
    name = "looked-at"
    options = "--detach --network none --stop-signal KILL"
    run("docker run " + options + " --name %s %s sleep 600", name, image)
    yield name
    run("docker rm --force --volumes %s", name)


@pytest.fixture(scope="module")
def main_pid(run):
    """Tells which process a unit's main one is."""
    return lambda unit: run("systemctl show --property MainPID --value %s", unit)


@pytest.fixture
def plugins(run):
    """The processes that serve manuka.  From /proc, as a bare machine has no `ps`."""
    script = (
        "cd /proc; for pid in [0-9]*; do echo $pid $(tr '\\0' ' ' 2>/dev/null <$pid/cmdline); done"
    )
    processes = (line.partition(" ") for line in run("sh -c %s", script).splitlines())
    return [pid for pid, _, command in processes if "manuka serve" in command]


@pytest.fixture
def kept(host):
    """What playbooks/furnish.yml noted: `image` (id), `pid`, `engine` and `plugin` (processes)."""
    return json.loads(host.file("/root/kept.json").content_string)
