"""The plugin was replaced by its next version, below running containers."""


def test_the_running_plugin_is_the_new_version_and_the_only_one(run, main_pid, plugins, kept):
    pid = main_pid("manuka.service")
    assert pid != kept["plugin"]
    assert plugins == [pid]
    program = run("cat /proc/%s/cmdline", pid).split("\0")[:2]
    assert "0.0.1" not in run("%s %s --version", *program)


def test_the_engine_was_not_restarted(main_pid, kept):
    assert main_pid("docker.service") == kept["engine"]


def test_the_container_runs_on_in_the_same_process(host, run, kept):
    assert run("docker inspect --format '{{.State.Pid}}' kept") == kept["pid"]
    assert "sleep" in host.file(f"/proc/{kept['pid']}/cmdline").content_string
    assert run("docker exec kept cat /before") == "before"
    assert run("docker diff kept") == "A /before"


def test_the_image_is_there(run, kept):
    assert run("docker image inspect --format '{{.Id}}' busybox:local") == kept["image"]


def test_a_container_that_the_previous_version_mounted_can_be_removed(host, run):
    layer = "docker inspect --format '{{.GraphDriver.Data.UpperDir}}' %s"
    upper = run(layer, "returning")
    assert host.file(upper).is_directory
    run("docker rm --force returning")
    assert not host.file(upper).exists
    # For the tests that come later.
    run(
        "docker run --detach --name returning --restart always --network none busybox:local "
        "sh -c 'echo before > /before; exec sleep 36000'"
    )
