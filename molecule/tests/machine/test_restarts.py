"""Restarts, planned and not, of the plugin and of the engine on a running machine."""

import pytest


@pytest.fixture
def pid(run, container):
    """Tells the process of the container."""
    return lambda: run("docker inspect --format '{{.State.Pid}}' %s", container)


@pytest.mark.parametrize("how", ["systemctl restart", "systemctl kill --signal KILL"])
def test_a_container_runs_on_while_the_plugin_starts_anew(host, run, main_pid, container, pid, how):
    run("docker exec %s sh -c 'echo before > /before'", container)
    plugin, process = main_pid("manuka.service"), pid()
    run(how + " manuka.service")
    # The engine's call waits on the socket until the new plugin takes it.
    run("docker exec %s sh -c 'cat /before && echo after > /after'", container)
    assert (
        run("docker run --rm --network none --volumes-from %s busybox:local true", container) == ""
    )
    assert main_pid("manuka.service") not in (plugin, "0")
    assert pid() == process
    assert set(run("docker diff %s", container).splitlines()) == {"A /before", "A /after"}


def test_an_engine_that_starts_anew_finds_images_and_containers(
    host, run, image, main_pid, container
):
    run("docker exec %s sh -c 'echo before > /before'", container)
    images = "docker image ls --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}'"
    told, engine = run(images), main_pid("docker.service")
    run("systemctl reset-failed docker.service; systemctl restart docker.service")
    assert main_pid("docker.service") != engine
    assert run("docker info --format '{{.Driver}}'") == "manuka"
    assert run(images) == told
    run("docker start %s", container)
    assert run("docker exec %s cat /before", container) == "before"
