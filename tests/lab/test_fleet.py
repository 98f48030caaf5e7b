"""Several hosts at once: one that fails or cannot be reached stops no other.

With one fork they come one after the other, so that those that fail come before the one that works.
"""

from __future__ import annotations

import re

import pytest

HOSTS = {
    "a-gone": {
        "release": "Debian 12",
        "vars": {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o BatchMode=yes",
        },
    },
    "b-refused": {"release": "Debian 12", "vars": {"docker_version": "28.0"}},
    "c-works": {"release": "Debian 12"},
}


@pytest.fixture(scope="module")
def outcome(play):
    return play("site.yml", HOSTS, "--check", "--forks", "1")


def test_a_host_that_cannot_be_reached_is_told_with_its_address(outcome) -> None:
    assert re.search(r"connect to host 127\.0\.0\.1 port 1: ", outcome["a-gone"]["unreachable"])
    assert outcome["a-gone"]["changed"] == []


def test_a_host_that_is_refused_is_told_by_itself(outcome) -> None:
    assert "Docker 28.0 cannot run on manuka" in outcome["b-refused"]["failed"]


def test_the_host_after_them_goes_on_to_the_end(outcome) -> None:
    assert outcome["c-works"]["failed"] == ""
    assert "Set the driver in daemon.json" in outcome["c-works"]["changed"]
