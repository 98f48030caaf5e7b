"""What goes wrong on a real machine, and how site.yml leaves it: in this order, on one machine.

They take eight minutes.  Each test leaves the machine provisioned for the next.  The way back to
the engine's own driver, and onto manuka once more, is Molecule's scenario `upgrade`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Iterator

import pytest
from machines import ROOT, Machine

pytestmark = pytest.mark.machine

RESTORES = "            instance.restore()\n"
LISTENS = '    listener = listen(arguments.socket or f"/run/docker/plugins/{name}.sock")\n'
SHORT = {"manuka_engine_timeout": 15}


@pytest.fixture(scope="module")
def machine(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.remove()


@pytest.fixture
def source(tmp_path: Path):
    """Copies of this repository's package, with one line replaced: other releases."""

    def make(old: str, new: str) -> str:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tmp_path / name)
        shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "manuka", tmp_path / "manuka", ignore=ignored)
        serve = tmp_path / "manuka/commands/serve.py"
        assert serve.read_text().count(old) == 1
        serve.write_text(serve.read_text().replace(old, new))
        return str(tmp_path)

    return make


def release(machine: Machine) -> str:
    """The release that runs, by its digest."""
    pid = machine.run("systemctl", "show", "--property", "MainPID", "--value", "manuka.service")
    command = machine.run("cat", f"/proc/{pid}/cmdline")
    return re.findall(r"/releases/(\w+)/", command)[0]


def releases(machine: Machine) -> set:
    return set(machine.run("ls", "/opt/manuka/releases").split())


def runs(machine: Machine) -> bool:
    container = ["docker", "run", "--rm", "--network", "none", "kept:local"]
    return machine.run(*container, "/bin/busybox", "echo", "runs") == "runs"


def test_a_plugin_that_never_came_up_leaves_the_engine_as_it_was(machine, source) -> None:
    machine.write("/etc/docker/daemon.json", '{"log-level": "info"}\n')
    broken = source(LISTENS, LISTENS + '    raise ManukaError("broken on purpose")\n')
    play = machine.play(manuka_source=broken, **SHORT).expect_failure()
    assert "broken on purpose" in play.text
    assert "daemon.json is as it was; the engine runs on overlay2." in play.text
    assert machine.driver() == "overlay2"
    assert machine.read("/etc/docker/daemon.json") == '{"log-level": "info"}'
    assert machine.run("systemctl", "is-enabled", "manuka.service", check=False) != "enabled"


def test_images_of_another_driver_are_named_and_nothing_is_changed(machine) -> None:
    machine.load_image("kept:local")
    machine.run("docker", "create", "--name", "stays", "kept:local", "/bin/busybox")
    play = machine.play().expect_failure()
    assert (
        "A change from the driver overlay2 to manuka would put out of sight the images kept:local "
        "and the containers stays." in play.text
    )
    assert play.recap("changed") == 0
    assert machine.driver() == "overlay2"


def test_the_engine_comes_to_manuka_if_its_images_may_go_out_of_sight(machine) -> None:
    machine.play(manuka_accept_hidden_images=True).expect_ok()
    assert machine.driver() == "manuka"
    assert machine.run("docker", "image", "ls", "--quiet") == ""
    assert '"log-level": "info"' in machine.read("/etc/docker/daemon.json")
    machine.load_image("kept:local")
    assert runs(machine)


def test_the_way_back_names_the_images_that_it_would_hide(machine) -> None:
    play = machine.play(manuka_state="absent").expect_failure()
    assert "the images kept:local" in play.text
    assert play.recap("changed") == 0
    assert machine.driver() == "manuka"


def test_a_check_changes_nothing(machine) -> None:
    play = machine.play("--check", "--diff").expect_ok()
    assert play.recap("changed") == 0
    assert "+++ after" not in play.output


def test_an_upgrade_that_does_not_start_goes_back_to_the_release_before(machine, source) -> None:
    sleep = ["/bin/busybox", "sleep", "36000"]
    machine.run("docker", "run", "-d", "--name", "on", "--network", "none", "kept:local", *sleep)
    before = release(machine)
    daemon_json = machine.read("/etc/docker/daemon.json")
    broken = source(LISTENS, LISTENS + '    raise ManukaError("broken on purpose")\n')
    play = machine.play(manuka_source=broken, **SHORT).expect_failure()
    assert "broken on purpose" in play.text
    assert "The release before runs again" in play.text
    assert "the engine runs on manuka." in play.text
    assert release(machine) == before
    assert machine.read("/etc/docker/daemon.json") == daemon_json
    assert machine.run("docker", "exec", "on", "/bin/busybox", "echo", "goes on") == "goes on"
    assert runs(machine)


def test_an_upgrade_that_starts_and_is_of_no_use_goes_back_too(machine, source) -> None:
    before = release(machine)
    useless = source(RESTORES, "            pass\n")
    play = machine.play(manuka_source=useless, **SHORT).expect_failure()
    assert "The release before runs again" in play.text
    assert release(machine) == before
    assert runs(machine)


def test_an_upgrade_keeps_containers_and_of_all_releases_the_one_before(machine, source) -> None:
    before = release(machine)
    assert len(releases(machine)) > 2
    engine = machine.run("systemctl", "show", "--property", "MainPID", "docker.service")
    machine.play(manuka_source=source(RESTORES, RESTORES + "            # later\n")).expect_ok()
    assert release(machine) != before
    assert releases(machine) == {before, release(machine)}
    assert machine.run("systemctl", "show", "--property", "MainPID", "docker.service") == engine
    assert machine.run("docker", "exec", "on", "/bin/busybox", "echo", "goes on") == "goes on"
    assert runs(machine)


def test_a_machine_whose_plugin_is_gone_is_mended(machine) -> None:
    machine.run("systemctl", "stop", "docker.service", "docker.socket", "manuka.service")
    machine.run("rm", "-rf", "/opt/manuka/releases", "/etc/systemd/system/manuka.socket")
    machine.play().expect_ok()
    assert machine.driver() == "manuka"
    machine.run("docker", "start", "on")
    assert runs(machine)
