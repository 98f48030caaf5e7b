"""What the Vagrantfile says for each provider and setting. No machine is started."""

import functools
import json
import subprocess

import pytest
from conftest import HERE, REPOSITORY, run

RELEASES = ["cosmic", "focal", "jammy", "noble", "bullseye", "bookworm", "trixie"]


@pytest.fixture(scope="module")
def machines(vagrant_environment):
    """Reads the machines that the Vagrantfile makes with a provider and variables."""

    @functools.lru_cache(maxsize=None)
    def read(provider, **variables):
        environment = {**vagrant_environment, **variables}
        return json.loads(run("ruby", HERE / "dump.rb", provider, env=environment))

    return read


@pytest.fixture
def refuse(vagrant_environment):
    """What Vagrant says to variables that it must not take."""

    def read(**variables):
        done = subprocess.run(
            ["vagrant", "validate"], cwd=str(REPOSITORY), env={**vagrant_environment, **variables},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode != 0
        return done.stdout

    return read


@pytest.mark.parametrize("variables", [{}, {"MACHINES": "2"}, {"MACHINE_DRIVER": "qemu"}])
def test_vagrant_finds_the_file_valid_for_libvirt(vagrant_environment, variables):
    environment = {**vagrant_environment, **variables, "VAGRANT_DEFAULT_PROVIDER": "libvirt"}
    assert "validated successfully" in run("vagrant", "validate", env=environment)


def test_vagrant_finds_the_file_valid_where_virtualbox_is_not_installed(vagrant_environment):
    environment = {**vagrant_environment, "VAGRANT_DEFAULT_PROVIDER": "virtualbox"}
    output = run("vagrant", "validate", "--ignore-provider", env=environment)
    assert "validated successfully" in output


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_by_default_there_is_one_machine_of_ubuntu_18_10(machines, provider):
    ((name, config),) = machines(provider).items()
    assert name == config["hostname"] == "manuka"
    assert config["box"] == "generic/ubuntu1810"
    assert config["folders"] == []


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_machines_are_told_apart_by_name_and_port(machines, provider):
    config = machines(provider, MACHINES="3")
    assert list(config) == ["manuka", "manuka-2", "manuka-3"]
    assert [machine["hostname"] for machine in config.values()] == list(config)
    ports = [machine["ports"] for machine in config.values()]
    assert [[(port["id"], port["guest"], port["host"]) for port in each] for each in ports] == [
        [("ssh", 22, 2222)], [("ssh", 22, 2223)], [("ssh", 22, 2224)],
    ]  # fmt: skip


def test_the_forwarded_port_is_open_to_this_machine_alone(machines):
    for provider in "virtualbox", "libvirt":
        (port,) = machines(provider)["manuka"]["ports"]
        assert port["host_ip"] == "127.0.0.1"


def test_each_release_has_a_box_of_its_own(machines):
    boxes = [machines("libvirt", MACHINE_RELEASE=name)["manuka"]["box"] for name in RELEASES]
    assert len(set(boxes)) == len(RELEASES)


def test_another_box_can_be_named(machines):
    config = machines("virtualbox", MACHINE_RELEASE="noble", MACHINE_BOX="/tmp/own.box")
    assert config["manuka"]["box"] == "/tmp/own.box"


def test_virtualbox_gives_processors_and_memory(machines):
    def size(**variables):
        calls = machines("virtualbox", **variables)["manuka"]["provider"]["customizations"]
        return [(option, int(value)) for _, (*_, option, value) in calls]

    assert size() == [("--cpus", 2), ("--memory", 2048)]
    assert size(MACHINE_CPUS="4", MACHINE_MEMORY="8192") == [("--cpus", 4), ("--memory", 8192)]


def test_libvirt_gives_processors_and_memory(machines):
    provider = machines("libvirt")["manuka"]["provider"]
    assert (provider["cpus"], provider["memory"]) == (2, 2048)
    more = machines("libvirt", MACHINE_CPUS="4", MACHINE_MEMORY="8192")["manuka"]["provider"]
    assert (more["cpus"], more["memory"]) == (4, 8192)


def test_libvirt_runs_on_kvm_and_starts_what_the_box_starts(machines):
    provider = machines("libvirt")["manuka"]["provider"]
    assert provider["driver"] == "kvm"
    assert provider["cpu_mode"] == "host-model"
    assert not any(provider.get(name) for name in ("kernel", "initrd", "cmd_line"))


def test_libvirt_can_do_without_kvm_and_without_a_boot_loader(machines):
    variables = {
        "MACHINE_DRIVER": "qemu", "MACHINE_CPU": "qemu64", "MACHINE_KERNEL": "/tmp/vmlinuz",
        "MACHINE_INITRD": "/tmp/initrd", "MACHINE_CMDLINE": "root=/dev/vda rw",
    }  # fmt: skip
    provider = machines("libvirt", **variables)["manuka"]["provider"]
    assert (provider["driver"], provider["cpu_mode"], provider["cpu_model"]) == (
        "qemu", "custom", "qemu64",
    )  # fmt: skip
    boot = provider["kernel"], provider["initrd"], provider["cmd_line"]
    assert boot == ("/tmp/vmlinuz", "/tmp/initrd", "root=/dev/vda rw")


def test_ansible_runs_site_yml_on_docker_hosts_with_its_own_settings(machines):
    ((kind, ansible),) = machines("virtualbox", MACHINES="2")["manuka"]["provisioners"]
    assert kind == "ansible"
    assert ansible["groups"] == {"docker_hosts": ["manuka", "manuka-2"]}
    for setting in "playbook", "config_file":
        assert (REPOSITORY / ansible[setting]).is_file()
    assert ansible["extra_vars"] == {"docker_version": "", "docker_users": ["vagrant"]}


def test_the_engine_can_be_chosen(machines):
    config = machines("libvirt", MACHINE_RELEASE="jammy", DOCKER_VERSION="27.5")
    ((_, ansible),) = config["manuka"]["provisioners"]
    assert ansible["extra_vars"]["docker_version"] == "27.5"


def test_an_unknown_release_is_named_and_those_that_are_known(refuse):
    said = refuse(MACHINE_RELEASE="warty")
    assert "MACHINE_RELEASE=warty" in said
    assert all(release in said for release in RELEASES)


@pytest.mark.parametrize(
    ("name", "value"), [("MACHINES", "0"), ("MACHINE_CPUS", "two"), ("MACHINE_MEMORY", "1.5")]
)
def test_what_is_no_number_is_named(refuse, name, value):
    said = refuse(**{name: value})
    assert f"{name}={value}" in said
    assert ".rb:" not in said  # nothing of Ruby's
