"""What was on the machine before a reboot or a change is there after it."""


def test_the_image_is_the_same(run, kept):
    assert run("docker image inspect --format '{{.Id}}' busybox:local") == kept["image"]
    assert run("docker run --rm --network none busybox:local cat /greeting") == "old"


def test_the_container_starts_again_with_what_it_wrote(run):
    run("docker start kept")
    assert run("docker exec kept cat /before") == "before"
    assert run("docker diff kept") == "A /before"


def test_the_container_that_is_to_return_has_returned(run):
    assert run("docker inspect --format '{{.State.Running}}' returning") == "true"
    assert run("docker exec returning cat /before") == "before"
