"""A real `vagrant up` under libvirt, and what people do with the machine after it.

The box is made from Debian's packages, since there is none that could be fetched everywhere; QEMU
does without KVM, since few hosts of CI have it (`MACHINE_DRIVER=kvm` says that this one has). The
tests share one machine, and come in the order of its life. It is provisioned once, which takes
minutes without KVM: that a second time changes nothing is shown by Molecule's scenarios.
"""

import json
import os
import re
import sys
import warnings
from pathlib import Path
from threading import Event, Thread

import pytest
from conftest import HERE, run

# Seconds that a machine has for its way onto the network. It needs 20, and 90 beside other tests.
PATIENCE = 300

MAKE_IMAGE = """
set -e
root=$(mktemp -d)
mkdir "$root/bin"
cp /bin/busybox "$root/bin"
for name in sh cat rm sleep; do ln -s busybox "$root/bin/$name"; done
echo hello >"$root/greeting"
tar -C "$root" -c . | docker import - busybox:local
"""


class Machine:
    """The machine `manuka`, seen from the folder of the Vagrantfile."""

    def __init__(self, private, checkout, environment):
        self.private, self.checkout, self.environment = private, checkout, environment

    def run(self, *command, folder="."):
        return self.private.run(*command, env=self.environment, cwd=self.checkout / folder)

    def vagrant(self, *arguments):
        return self.run("vagrant", *arguments)

    def up(self):
        """What `vagrant up` prints.

        Without KVM, a machine was seen that never came onto the network. Vagrant waits a quarter of
        an hour for such a one, and fails. Somebody who sat before it would press its reset button;
        so does this, with a warning that has what the machine said.
        """
        is_up = Event()
        somebody = Thread(target=self._press_reset, args=[is_up])
        somebody.start()
        try:
            return self.vagrant("up", "--provider=libvirt")
        finally:
            is_up.set()
            somebody.join()

    def _press_reset(self, is_up):
        while not is_up.wait(5):
            for domain in self.virsh("list", "--name"):
                if is_up.wait(PATIENCE) or "ipv4" in self.virsh("domifaddr", domain):
                    return
                said = f"{domain} had no address after {PATIENCE} s:\n{self.console()}"
                warnings.warn(said, stacklevel=1)
                self.virsh("reset", domain)

    def console(self):
        """What the machine has said since it was made or last reloaded."""
        console = Path(self.environment["VAGRANT_HOME"], "console")
        return console.read_text(errors="replace") if console.exists() else ""

    def ssh(self, command):
        """What a command prints in the shell that `vagrant ssh` opens."""
        return self.vagrant("ssh", "--no-tty", "--command", command).strip()

    def virsh(self, *arguments):
        return self.run("virsh", "--connect", "qemu:///system", *arguments).split()


@pytest.fixture(scope="module")
def box(vagrant_environment, tmp_path_factory):
    """A folder with a box, and the variables with which the Vagrantfile takes it."""
    folder = os.environ.get("MACHINE_BOX_FOLDER")  # one that `box` has made before
    if not folder:
        folder = str(tmp_path_factory.mktemp("box"))
        release = os.environ.get("MACHINE_RELEASE", "bookworm")
        run(HERE / "box", release, folder, env=vagrant_environment)
    with open(f"{folder}/cmdline") as file:
        cmdline = file.read().strip()
    driver = os.environ.get("MACHINE_DRIVER", "qemu")
    return {
        "MACHINE_BOX": f"{folder}/machine.box",
        "MACHINE_KERNEL": f"{folder}/vmlinuz",
        "MACHINE_INITRD": f"{folder}/initrd",
        "MACHINE_CMDLINE": cmdline,
        "MACHINE_DRIVER": driver,
        "MACHINE_CPU": "qemu64" if driver == "qemu" else "",
        # QEMU's processors wait for each other more than they help.
        "MACHINE_CPUS": "1" if driver == "qemu" else "2",
    }


@pytest.fixture(scope="module")
def machine(private, checkout, vagrant_environment, box):
    machine = Machine(private, checkout, {**vagrant_environment, **box})
    try:
        machine.output = machine.up()
        yield machine
    finally:
        print("Its console:", machine.console(), sep="\n")
        machine.vagrant("destroy", "--force")


def recap(output):
    """The counts of Ansible's last line about the machine."""
    line = re.findall(r"^(?:\s*manuka: )?manuka\s+: (ok=.*)$", output, re.MULTILINE)[-1]
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}


def on_manuka(machine, container):
    """Whether a running container's files are an overlay that manuka has mounted."""
    told = machine.ssh("docker inspect --format '{{json .GraphDriver}}' " + container)
    merged = json.loads(told)["Data"]["MergedDir"]
    mounts = [line.split()[1:3] for line in machine.ssh("sudo cat /proc/1/mounts").splitlines()]
    return merged.startswith("/var/lib/docker/manuka/") and [merged, "overlay"] in mounts


def test_up_makes_the_machine_and_brings_docker_onto_manuka(machine):
    counts = recap(machine.output)
    assert counts["changed"] > 0
    assert counts["failed"] == counts["unreachable"] == 0
    assert machine.vagrant("status", "--machine-readable").count("state,running") == 1


def test_vagrant_ssh_lands_where_docker_info_says_manuka(machine):
    # As the user that Vagrant logs in, who needs no sudo.
    assert machine.ssh("docker info --format '{{.Driver}}'") == "manuka"
    assert "Storage Driver: manuka" in machine.ssh("docker info")


def test_everybodys_key_does_not_open_the_machine(machine):
    keys = machine.ssh("cat ~/.ssh/authorized_keys")
    assert keys.startswith("ssh-")
    assert "insecure" not in keys


def test_ansible_reaches_the_machine_by_the_inventory(machine):
    docker = ["--become", "-m", "command", "-a", "docker info --format {{'{{.Driver}}'}}"]
    said = machine.run("ansible", "docker_hosts", *docker, folder="ansible")
    assert said.splitlines() == ["manuka | CHANGED | rc=0 >>", "manuka"]


def test_a_container_in_the_machine_is_an_overlay_of_manuka(machine):
    machine.ssh(MAKE_IMAGE)
    assert machine.ssh("docker run --rm --network none busybox:local cat /greeting") == "hello"
    machine.ssh(
        "docker run --detach --name kept --network none busybox:local"
        " sh -c 'echo 42 > /answer; rm /greeting; exec sleep 3600'"
    )
    assert set(machine.ssh("docker diff kept").splitlines()) == {"A /answer", "D /greeting"}
    assert on_manuka(machine, "kept")


def test_images_and_containers_are_there_after_a_reboot(machine):
    boot = machine.ssh("cat /proc/sys/kernel/random/boot_id")
    machine.vagrant("reload", "--no-provision")
    assert machine.ssh("cat /proc/sys/kernel/random/boot_id") != boot
    assert machine.ssh("docker info --format '{{.Driver}}'") == "manuka"
    assert machine.ssh("docker start kept && docker exec kept cat /answer").split() == [
        "kept",
        "42",
    ]
    assert on_manuka(machine, "kept")
    assert machine.ssh("docker run --rm --network none busybox:local cat /greeting") == "hello"


@pytest.fixture(scope="module")
def lab(machine):
    """Runs `./lab`, which finds its own Ansible and no Docker engine of this computer's."""
    (machine.checkout / ".venv-lab").symlink_to(sys.prefix)
    machine.environment["VAGRANT_DEFAULT_PROVIDER"] = "libvirt"
    return lambda *words: machine.run("./lab", *words)


def test_lab_up_finds_the_machine_and_shows_a_container_on_it(lab):
    said = lab("up", "--vm")
    assert "storage driver manuka" in said
    assert "Hello from a container" in said
    assert "A /said" in said


def test_lab_shell_is_roots_and_runs_one_command_with_its_words_as_they_are(lab):
    script = "id --user; docker info --format '{{.Driver}}'; echo \"$0, $1\""
    said = lab("shell", "sh", "-c", script, "it's a", "b  $c")
    assert said.splitlines() == ["0", "manuka", "it's a, b  $c"]
    lab("shell")  # which ends with its input


def test_lab_down_leaves_no_domain_disk_network_or_process(lab, machine):
    (domain,) = machine.virsh("list", "--all", "--name")
    assert "manuka" in domain
    lab("down")
    assert machine.virsh("list", "--all", "--name") == []
    assert domain not in " ".join(machine.virsh("vol-list", "default"))
    assert machine.virsh("net-list", "--all", "--name") == []
    left = {line.split()[0] for line in machine.private.processes().values() if line}
    assert not {"qemu-system-x86_64", "ssh", "/usr/sbin/dnsmasq"} & left
    assert not list((machine.checkout / ".vagrant/machines").glob("*/libvirt/id"))
