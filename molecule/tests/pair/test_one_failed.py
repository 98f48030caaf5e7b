"""Two hosts, one run of site.yml, and one of them failed: its daemon.json was cut short."""

import pytest


@pytest.fixture
def failed(host):
    return host.backend.get_hostname() == "manuka-pair-bullseye"


def test_the_change_reached_the_host_that_did_not_fail(run, main_pid, failed):
    command = run("cat /proc/%s/cmdline", main_pid("manuka.service")).split("\0")
    assert ("debug" in command) == (not failed)


def test_the_file_that_was_not_understood_is_as_its_owner_left_it(host, failed):
    text = host.file("/etc/docker/daemon.json").content_string
    assert (text == '{"experimental": true,') == failed


def test_containers_run_on_both_hosts(run, image):
    assert run("docker info --format '{{.Driver}}'") == "manuka"
    assert run("docker run --rm --network none %s cat /greeting", image) == "old"
