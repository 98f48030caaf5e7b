"""Each supported release: what the roles set up for apt is judged by apt itself.

The releases are roots that say they are one; their archives have packages of real names and
versions, those of engines without plugins among them.  Roles ubuntu and docker run in earnest
there, and all of site.yml as a check.
"""

from __future__ import annotations

import re
from pathlib import Path

import archives
import pytest
import roots
import yaml

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
KNOWN = yaml.safe_load((ANSIBLE / "roles/docker/vars/main.yml").read_text())["docker_known"]

# The roles that need no systemd that runs.
PLAYBOOK = """
- hosts: docker_hosts
  strategy: ansible.builtin.host_pinned
  roles: [ubuntu, docker]
"""

# Release to whose packages, the engines that there are, and the one that is right.
ENGINES = {
    "Ubuntu 18.10": (
        "docker",
        [
            "5:18.09.2~3-0~ubuntu-cosmic",
            "5:18.09.9~3-0~ubuntu-cosmic",
            "5:19.03.6~3-0~ubuntu-cosmic",
        ],
        "5:18.09.9~3-0~ubuntu-cosmic",
    ),
    "Ubuntu 20.04": (
        "docker",
        ["5:20.10.24~3-0~ubuntu-focal", "5:24.0.9-1~ubuntu.20.04~focal"],
        "5:20.10.24~3-0~ubuntu-focal",
    ),
    "Ubuntu 22.04": (
        "docker",
        ["5:24.0.9-1~ubuntu.22.04~jammy", "5:28.2.2-1~ubuntu.22.04~jammy"],
        "5:24.0.9-1~ubuntu.22.04~jammy",
    ),
    "Ubuntu 24.04": (
        "docker",
        ["5:26.1.4-1~ubuntu.24.04~noble", "5:27.5.1-1~ubuntu.24.04~noble", "5:29.0.0-1~noble"],
        "5:26.1.4-1~ubuntu.24.04~noble",
    ),
    "Debian 11": (
        "distribution",
        ["20.10.5+dfsg1-1+deb11u4", "26.1.5+dfsg1-9~bpo11+1"],
        "20.10.5+dfsg1-1+deb11u4",
    ),
    "Debian 12": (
        "distribution",
        ["20.10.24+dfsg1-1+deb12u1+b2", "28.5.1+dfsg1-1"],
        "20.10.24+dfsg1-1+deb12u1+b2",
    ),
    "Debian 13": ("distribution", ["26.1.5+dfsg1-9", "28.5.1+dfsg1-1"], "26.1.5+dfsg1-9"),
    "Debian 12, Docker's 27.5": (
        "docker",
        ["5:24.0.9-1~debian.12~bookworm", "5:27.5.1-1~debian.12~bookworm", "5:28.0.0-1~bookworm"],
        "5:27.5.1-1~debian.12~bookworm",
    ),
}
VARIABLES = {
    "Debian 12, Docker's 27.5": {"docker_version": "27.5", "docker_packages_from": "docker"}
}


def release_of(case: str) -> str:
    return case.split(",")[0]


def host(case: str) -> str:
    return re.sub(r"\W+", "-", case)


def engine_packages(case: str) -> list:
    if ENGINES[case][0] == "docker":
        return ["docker-ce", "docker-ce-cli"]
    return ["docker.io", "docker-cli"] if case == "Debian 13" else ["docker.io"]


@pytest.fixture(scope="module")
def outcome(play, tmp_path_factory):
    """The roles ubuntu and docker have run on all of them."""
    folder = tmp_path_factory.mktemp("archives")
    signer = archives.Signer(folder / "key")
    hosts = {}
    for case, (whose, versions, _) in ENGINES.items():
        name, codename = release_of(case), roots.RELEASES[release_of(case)][0]
        distribution = name.split()[0].lower()
        place = folder / host(case)
        base = {"apparmor": ["3.0"], "ca-certificates": ["20990101"], "kmod": ["99"]}
        engines = dict.fromkeys(engine_packages(case), versions)
        source = f"deb file:/archive/{distribution} {codename} main\n"
        if whose == "docker":
            docker = place / f"docker/{distribution}"
            containerd = {"containerd.io": ["1.7.27-1"]}
            archives.archive(docker, codename, "stable", {**engines, **containerd}, signer)
            (docker / "gpg").write_text(signer.key)
        else:
            base.update(engines)
        for suite in (codename, f"{codename}-updates", f"{codename}-security"):
            archives.archive(place / distribution, suite, "main", base, signer)
            base = {}
        hosts[host(case)] = {
            "release": name,
            "folders": {"/archive": str(place)},
            "files": {
                "/etc/apt/trusted.gpg.d/archive.asc": signer.key,
                # What an old installation has: its archive is gone.
                "/etc/apt/sources.list": "deb http://127.0.0.1:1/gone cosmic main\n"
                if name == "Ubuntu 18.10"
                else source,
            },
            "vars": {
                "ubuntu_old_releases_url": "file:///archive/ubuntu",
                "docker_repository_url": "file:///archive/docker",
                **VARIABLES.get(case, {}),
            },
            "say": {
                "policy": f"apt-cache policy {engine_packages(case)[0]}",
                "held": "apt-mark showhold",
                "targets": "apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)'",
                "upgrade": f"apt-mark unhold {' '.join(engine_packages(case))}; apt-get -s upgrade",
                "update": "apt-get update",
                "errors": "apt-get -o Dpkg::Use-Pty=0 check 2>&1 | grep -E '^(E|W):'",
            },
            "read": ["/etc/apt/sources.list", "/etc/apt/preferences.d/docker"],
        }
    signer.close()
    playbook = folder / "engine.yml"
    playbook.write_text(PLAYBOOK)
    return play(str(playbook), hosts)


@pytest.mark.parametrize("case", ENGINES)
def test_the_roles_run_until_a_systemd_is_needed(outcome, case: str) -> None:
    assert outcome[host(case)]["failed"].startswith("Start the engine: ")
    assert "Hold it at that" in outcome[host(case)]["changed"]


@pytest.mark.parametrize("case", ENGINES)
def test_apt_installs_the_engine_that_is_known_to_work(outcome, case: str) -> None:
    policy = outcome[host(case)]["said"]["policy"]
    assert f"Installed: {ENGINES[case][2]}\n" in policy, policy
    assert f"Candidate: {ENGINES[case][2]}\n" in policy, policy


@pytest.mark.parametrize("case", ENGINES)
def test_apt_holds_it(outcome, case: str) -> None:
    assert outcome[host(case)]["said"]["held"].split() == sorted(engine_packages(case))


@pytest.mark.parametrize("case", ENGINES)
def test_an_upgrade_keeps_the_line_even_when_it_is_not_held(outcome, case: str) -> None:
    said = outcome[host(case)]["said"]["upgrade"]
    assert "Canceled hold" in said
    assert "Inst docker" not in said, said


@pytest.mark.parametrize("case", ENGINES)
def test_apt_reads_the_sources_and_trusts_them(outcome, case: str) -> None:
    said = outcome[host(case)]["said"]
    assert not re.search(r"^[EW]:", said["update"], re.M), said["update"]
    assert said["errors"] == ""


def test_apt_of_the_release_whose_support_has_ended_looks_into_the_archive(outcome) -> None:
    sources = outcome["Ubuntu-18-10"]["files"]["/etc/apt/sources.list"]
    suites = re.findall(r"^deb file:///archive/ubuntu (\S+) main universe$", sources, re.M)
    assert suites == ["cosmic", "cosmic-updates", "cosmic-security"]
    assert "gone" not in sources


def test_the_table_of_the_roles_is_the_one_that_is_tested() -> None:
    assert set(KNOWN) == set(roots.RELEASES) == {release_of(case) for case in ENGINES}
    for release, known in KNOWN.items():
        assert known["codename"] == roots.RELEASES[release][0]
        assert known["from"] == ENGINES[release][0]
        assert known["version"] in ENGINES[release][2]


def test_the_readme_has_the_same_table() -> None:
    readme = (ANSIBLE / "README.md").read_text()
    rows = dict(re.findall(r"^\| ((?:Ubuntu|Debian) [\d.]+) \| (.*?) \|.*$", readme, re.M))
    whose = {"docker": "Docker's", "distribution": "Debian's"}
    assert rows == {
        release: f"{known['version']}, {whose[known['from']]} packages"
        for release, known in KNOWN.items()
    }


def test_the_base_role_knows_the_same_releases() -> None:
    known = yaml.safe_load((ANSIBLE / "roles/ubuntu/vars/main.yml").read_text())["ubuntu_releases"]
    names = {
        f"{name} {version}": of["codename"]
        for name, all_ in known.items()
        for version, of in all_.items()
    }
    assert names == {release: of["codename"] for release, of in KNOWN.items()}


# --- a check of all of site.yml -------------------------------------------------------------------


@pytest.fixture(scope="module")
def checked(play):
    hosts = {
        host(release): {"release": release, "read": ["/etc/docker/daemon.json"]}
        for release in ("Ubuntu 18.10", "Ubuntu 24.04", "Debian 13")
    }
    for one in hosts.values():
        one["vars"] = {"docker_repository_url": "file:///nowhere"}
        one["files"] = {"/nowhere/ubuntu/gpg": "a key\n"}
    return play("site.yml", hosts, "--check", "--diff")


@pytest.mark.parametrize("release", ["Ubuntu 18.10", "Ubuntu 24.04", "Debian 13"])
def test_a_check_of_a_new_machine_goes_through_and_changes_nothing(checked, release: str) -> None:
    outcome = checked[host(release)]
    assert outcome["failed"] == ""
    assert {"Pin the engine's version", "Install the engine", "Install Python"} <= set(
        outcome["changed"]
    )
    assert "Set the driver in daemon.json" in outcome["changed"]
    assert outcome["files"]["/etc/docker/daemon.json"] is None
