"""`manuka_state: absent`: the engine is back on its own driver, and manuka's data stay."""

import json


def test_the_engine_is_on_the_driver_it_had_before(run):
    assert run("docker info --format '{{.Driver}}'") == "overlay2"


def test_what_was_there_before_manuka_is_there_again(host, run):
    images = run("docker image ls --format '{{.Repository}}:{{.Tag}}'").splitlines()
    assert images == ["native:local"]
    assert run("docker container ls --all --format '{{.Names}}'").splitlines() == ["native"]
    upper = run("docker inspect --format '{{.GraphDriver.Data.UpperDir}}' native")
    assert upper.startswith("/var/lib/docker/overlay2/")
    assert host.file(upper + "/written").content_string == "native\n"
    assert run("docker run --rm --network none native:local cat /greeting") == "old"


def test_the_layers_of_manuka_are_still_on_the_disk(host):
    found = host.check_output("find /var/lib/docker/manuka -path '*/diff/before' -type f")
    assert found.split()


def test_nothing_of_the_plugin_runs_or_is_mounted(host, plugins):
    assert not plugins
    assert not host.file("/run/docker/plugins/manuka.sock").exists
    assert "/var/lib/docker/manuka/" not in host.file("/proc/1/mountinfo").content_string
    assert host.run("systemctl cat manuka.service").rc != 0
    assert not host.exists("manuka")


def test_daemon_json_names_no_driver(host):
    file = host.file("/etc/docker/daemon.json")
    keys = json.loads(file.content_string) if file.exists else {}
    assert "storage-driver" not in keys
