"""Back on manuka, after a time without it."""


def test_the_engine_is_on_manuka(run):
    assert run("docker info --format '{{.Driver}}'") == "manuka"


def test_manukas_images_and_containers_are_in_sight_again_and_no_others(run):
    images = run("docker image ls --format '{{.Repository}}:{{.Tag}}'").splitlines()
    assert images == ["busybox:local"]
    names = run("docker container ls --all --format '{{.Names}}'").splitlines()
    assert sorted(names) == ["kept", "returning"]
