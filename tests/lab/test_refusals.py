"""What cannot work is refused by site.yml, with the reason, before the first change.

All cases are hosts of one run, on roots that a play could really change.
"""

from __future__ import annotations

import json
import re

import pytest

IMAGES = "/var/lib/docker/image/overlay2"
DIGEST = "0f" * 32
REPOSITORIES = {"Repositories": {"shop": {"shop:1": f"sha256:{DIGEST}"}}}
CONTAINER = {"Name": "/till", "Driver": "overlay2"}
HELD = {
    f"{IMAGES}/imagedb/content/sha256/{DIGEST}": "{}",
    f"{IMAGES}/repositories.json": json.dumps(REPOSITORIES),
    f"/var/lib/docker/containers/{DIGEST}/config.v2.json": json.dumps(CONTAINER),
}


def installed(package: str, version: str) -> dict:
    """A root's files in which dpkg has a package."""
    paragraph = f"Package: {package}\nStatus: install ok installed\nVersion: {version}\n"
    text = paragraph + "Architecture: all\nMaintainer: A <a@example.org>\nDescription: an engine\n"
    return {"/var/lib/dpkg/status": text}


def engine(version: str) -> dict:
    return {"/usr/bin/dockerd": f"#!/bin/sh\necho Docker version {version}, build 1\n"}


def case(release: str, expected: str, files: dict | None = None, **variables: object) -> tuple:
    return release, expected, files or {}, variables


CASES = {
    "an unknown release": case(
        "Ubuntu 19.04", r"Ubuntu 19\.04 is not supported\. Supported are Ubuntu 18\.10"
    ),
    "an unknown distribution": case("Fedora 40", r"is not supported\. Supported are Ubuntu 18\.10"),
    "Docker 28": case(
        "Ubuntu 22.04", r"Docker 28\.0 cannot run on manuka: 28\.0 removed", docker_version="28.0"
    ),
    "Docker 29, without minor": case(
        "Debian 12", r"Docker 29 cannot run on manuka", docker_version="29"
    ),
    "a version that is none": case(
        "Debian 12", r"docker_version: latest is no engine", docker_version="latest"
    ),
    "a number without quotes": case(
        "Ubuntu 20.04", r"20\.1 is no engine .* in quotes", docker_version=20.10
    ),
    "an engine older than plugins": case(
        "Ubuntu 18.10", r"18\.06 is no engine that manuka", docker_version="18.06"
    ),
    "18.09 on a later release": case(
        "Ubuntu 24.04",
        r"no known package of Docker 18\.09 for Ubuntu 24\.04.*Take 25\.0 to 27\.5",
        docker_version="18.09",
    ),
    "a later engine on 18.10": case(
        "Ubuntu 18.10",
        r"no known package of Docker 24\.0.*Take 18\.09 to 19\.03",
        docker_version="24.0",
    ),
    "another engine of Debian's": case(
        "Debian 12", r"Debian 12 itself has Docker 20\.10 and not 24\.0", docker_version="24.0"
    ),
    "Ubuntu's own engine": case(
        "Ubuntu 22.04", r"own docker\.io moves on", docker_packages_from="distribution"
    ),
    "Docker's packages on Debian 13": case(
        "Debian 13", r"begin with 28", docker_packages_from="docker"
    ),
    "an unknown source of packages": case(
        "Debian 12", r"value of docker_packages_from must be one of", docker_packages_from="snap"
    ),
    "an unknown state": case(
        "Debian 12", r"value of manuka_state must be one of: present, absent", manuka_state="gone"
    ),
    "an installed engine without plugins": case(
        "Debian 12",
        r"Docker 28\.5\.1 is installed, and 28\.0 removed",
        installed("docker.io", "28.5.1+dfsg1-1"),
    ),
    "an installed engine of a later line": case(
        "Ubuntu 22.04",
        r'26\.1\.4 is installed.* docker_version: "26\.1" and docker_packages_from: docker;',
        installed("docker-ce", "5:26.1.4-1~ubuntu.22.04~jammy"),
    ),
    "an installed engine of another's": case(
        "Ubuntu 20.04",
        r"from the package docker\.io, and not 20\.10 from docker-ce",
        installed("docker.io", "20.10.21-0ubuntu1"),
    ),
    "an engine of no package": case(
        "Debian 12", r"Docker 28\.2\.2 cannot run on manuka: 28\.0 removed", engine("28.2.2")
    ),
    "containerd's image store": case(
        "Debian 12",
        r"features\.containerd-snapshotter is true",
        {"/etc/docker/daemon.json": '{"features": {"containerd-snapshotter": true}}'},
    ),
    "two roles with one key": case(
        "Debian 12",
        r"docker_daemon_options: storage-driver in daemon\.json is the role manuka's",
        docker_daemon_options={"storage-driver": "overlay2"},
    ),
    "a daemon.json that is broken": case(
        "Debian 12",
        r"daemon\.json is no JSON: Expecting ',' delimiter: line 3 column 3.*left as it is",
        {"/etc/docker/daemon.json": '{\n  "a": 1\n  "b": 2\n}\n'},
    ),
    "a daemon.json that is a list": case(
        "Debian 12", r"is no JSON object, but begins with \[1\]", {"/etc/docker/daemon.json": "[1]"}
    ),
    "a broken file behind a link": case(
        "Debian 12",
        r"/srv/docker\.json is no JSON: .*line 1 column 2",
        {"/etc/docker/daemon.json": "-> /srv/docker.json", "/srv/docker.json": "{"},
    ),
    "apt without a network": case(
        "Debian 12",
        r"apt cannot fetch its lists or packages: .* Its sources are in /etc/apt/sources\.list ",
        {"/etc/apt/sources.list": "deb http://127.0.0.1:1/debian bookworm main\n"},
    ),
    "images of an engine that does not answer": case(
        "Debian 12",
        r"driver overlay2 to manuka would put out of sight the images shop:1 and the containers "
        r"till\..*does not answer.*Set manuka_accept_hidden_images",
        HELD,
    ),
    "images in a folder of its own": case(
        "Debian 12",
        r"the images shop:1 .* this is what lies in /srv/docker\.",
        {
            **{path.replace("/var/lib", "/srv"): text for path, text in HELD.items()},
            "/etc/docker/daemon.json": '{"data-root": "/srv/docker"}',
        },
    ),
    "images of remapped users": case(
        "Debian 12",
        r"the images shop:1 ",
        {path.replace("/docker/", "/docker/100000.100000/"): text for path, text in HELD.items()},
    ),
    "images of manuka, on the way back": case(
        "Debian 12",
        r"driver manuka to the one before would put out of sight the images shop:1 ",
        {
            **{path.replace("overlay2", "manuka"): text for path, text in HELD.items()},
            "/etc/docker/daemon.json": '{"storage-driver": "manuka"}',
        },
        manuka_state="absent",
    ),
}


def host(name: str) -> str:
    return re.sub(r"\W+", "-", name)


@pytest.fixture(scope="module")
def outcome(play):
    roots = {
        host(name): {"release": release, "files": files, "vars": variables,
                     "read": ["/etc/docker/daemon.json"]}
        for name, (release, _, files, variables) in CASES.items()
    }  # fmt: skip
    return play("site.yml", roots)


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_the_reason(outcome, name: str) -> None:
    expected = CASES[name][1]
    failed = " ".join(outcome[host(name)]["failed"].split())
    assert re.search(expected, failed), failed
    print(failed)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_changed_before_it_is_refused(outcome, name: str) -> None:
    assert outcome[host(name)]["changed"] == []


@pytest.mark.parametrize("name", CASES)
def test_daemon_json_stays_as_it_was(outcome, name: str) -> None:
    files = CASES[name][2]
    before = files.get("/etc/docker/daemon.json")
    if before and before.startswith("-> "):
        before = files[before[3:]]
    after = outcome[host(name)]["files"]["/etc/docker/daemon.json"]
    assert after == before
