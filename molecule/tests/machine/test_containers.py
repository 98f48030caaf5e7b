"""Containers on a machine that site.yml has made: what Docker says, and what lies on the disk."""

import json
import re

import pytest

HOME = "/var/lib/docker/manuka"


@pytest.fixture
def mounts(host):
    """Tells what is mounted, as init sees it: mount point to file system's type and options."""

    def read():
        lines = host.check_output("cat /proc/1/mountinfo").splitlines()
        fields = [line.split(" - ") for line in lines]
        return {left.split()[4]: right.split(" ", 2)[::2] for left, right in fields}

    return read


def test_a_container_runs(run, image):
    assert run("docker run --rm --network none %s cat /greeting", image) == "old"


def test_a_container_has_a_network(run, image):
    addresses = run("docker run --rm %s cat /proc/net/fib_trie", image)
    assert re.search(r"172\.\d+\.\d+\.\d+", addresses)


def test_what_a_container_changes_is_told_and_committed(run, image, container):
    run("docker exec %s sh -c 'echo new > /greeting; mkdir /made; rm /bin/ls'", container)
    changes = set(run("docker diff %s", container).splitlines())
    assert changes == {"A /made", "C /bin", "D /bin/ls", "C /greeting"}
    run("docker commit %s changed:local", container)
    try:
        command = "cat /greeting; [ -d /made ] && ! [ -e /bin/ls ] && echo as told"
        output = run("docker run --rm --network none changed:local sh -c %s", command)
        assert output.splitlines() == ["new", "as told"]
        assert run("docker run --rm --network none %s cat /greeting", image) == "old"
    finally:
        run("docker rmi --force changed:local")


def test_a_running_container_is_an_overlay_below_the_plugins_home(run, mounts, container):
    data = json.loads(run("docker inspect --format '{{json .GraphDriver}}' %s", container))
    assert data["Name"] == "manuka"
    merged = data["Data"]["MergedDir"]
    assert merged.startswith(HOME + "/")
    fstype, options = mounts()[merged]
    assert fstype == "overlay"
    assert "lowerdir=" in options


def test_what_a_container_writes_is_a_file_in_its_layer(host, run, container):
    run("docker exec %s sh -c 'echo 42 > /answer'", container)
    upper = run("docker inspect --format '{{.GraphDriver.Data.UpperDir}}' %s", container)
    assert upper.startswith(HOME + "/")
    assert host.file(upper + "/answer").content_string == "42\n"


def test_a_removed_container_leaves_neither_mount_nor_layer(host, run, image, mounts):
    run("docker run --detach --name short --network none %s sleep 600", image)
    merged = run("docker inspect --format '{{.GraphDriver.Data.MergedDir}}' short")
    assert merged in mounts()
    run("docker rm --force short")
    assert merged not in mounts()
    assert not host.file(merged[: -len("/merged")]).exists


def test_an_image_that_was_built_and_saved_comes_back_the_same(run, image):
    recipe = f'FROM {image}\nRUN ["touch", "/more"]\n'
    run("printf %s | docker build --tag saved:local -", recipe)
    told = run("docker image inspect --format '{{.Id}} {{.RootFS.Layers}}' saved:local")
    run("docker save --output /root/saved.tar saved:local && docker rmi saved:local")
    try:
        run("docker load --input /root/saved.tar")
        again = run("docker image inspect --format '{{.Id}} {{.RootFS.Layers}}' saved:local")
        assert again == told
        assert "more" in run("docker run --rm --network none saved:local ls /")
    finally:
        run("docker rmi --force saved:local; rm /root/saved.tar")
