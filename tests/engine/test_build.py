"""``docker build``, by the engine's old builder and by BuildKit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox

from .images import SavedImage, digest, entries
from .steps import assert_soon, inspect, layer_folders, layer_mounts, run

DOCKERFILE = b"""
FROM box:1 AS first
RUN echo made > /srv/made && chmod 4755 /srv/made && rm /etc/motd && rm -r /srv/tree
RUN mkdir /srv/tree && echo fresh > /srv/tree/fresh

FROM box:1
COPY context /srv/copied/
COPY --from=first /srv/made /srv/taken
ADD packed.tar /srv/packed/
RUN ls /srv/copied > /srv/list && rm /srv/copied/b
USER ann
"""


def _client_with_buildkit() -> str | None:
    """A docker client that can drive the BuildKit in an engine: by buildx, or an older one."""
    for folder in os.environ["PATH"].split(os.pathsep):
        client = shutil.which("docker", path=folder)
        if client is None:
            continue
        buildx = subprocess.run(
            [client, "buildx", "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        said = subprocess.run([client, "--version"], stdout=subprocess.PIPE).stdout.decode()
        match = re.search(r"(\d+)\.", said)
        if buildx.returncode == 0 or (match and 18 <= int(match.group(1)) < 23):
            return client
    return None


@pytest.fixture(params=["old builder", "BuildKit"])
def builder(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings for ``docker build``: which client, and whether it uses BuildKit."""
    if request.param == "old builder":
        return {"client": "docker", "buildkit": "0"}
    client = _client_with_buildkit()
    if client is None:
        pytest.skip("no docker client with BuildKit: apt-get install docker-buildx")
    return {"client": client, "buildkit": "1"}


@pytest.fixture
def _copies(sandbox: Sandbox, builder: dict[str, str]) -> None:
    """For a test that builds with COPY or ADD."""
    if builder["buildkit"] == "1" and sandbox.engine.program.version < (19, 3):
        pytest.skip(
            "the BuildKit of engines before 19.03 copies by a container of the image "
            "docker/dockerfile-copy, which has to be pulled"
        )


@pytest.fixture
def context(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("context")
    (folder / "context").mkdir()
    for name in ("a", "b"):
        (folder / "context" / name).write_text(name + "\n")
    os.chmod(folder / "context" / "a", 0o751)
    subprocess.run(
        ["tar", "-C", str(folder / "context"), "-cf", str(folder / "packed.tar"), "a"], check=True
    )
    (folder / "Dockerfile").write_bytes(DOCKERFILE)
    return str(folder)


@pytest.fixture(autouse=True)
def _nothing_stays(sandbox: Sandbox) -> Iterator[None]:
    before = layer_folders(sandbox)
    yield
    sandbox.docker("builder", "prune", "-af")
    sandbox.docker("image", "prune", "-f")
    assert_soon(sandbox, before, [])


def build(sandbox: Sandbox, builder: dict[str, str], tag: str, folder: str, *more: str) -> None:
    """Build as a user does; the commands in it get no network, for the engine has none."""
    sandbox.docker(
        *("build", "--network", "none", "-t", tag, *more, folder),
        client=builder["client"],
        env={"DOCKER_BUILDKIT": builder["buildkit"]},
    )


@pytest.mark.usefixtures("_copies")
def test_a_build_makes_what_its_file_says(
    sandbox: Sandbox, builder: dict[str, str], context: str, name: str
) -> None:
    build(sandbox, builder, f"{name}:1", context)
    script = (
        "id -un; cat /srv/list /srv/taken /etc/motd; ls /srv/copied /srv/packed /srv/tree;"
        "stat -c '%a %u' /srv/copied/a /srv/taken"
    )
    assert run(sandbox, f"{name}:1", script).split() == [
        *("ann", "a", "b", "made", "welcome"),
        *("/srv/copied:", "a", "/srv/packed:", "a", "/srv/tree:", "a", "b", "b2", "link"),
        *("751", "0", "4755", "0"),
    ]
    sandbox.docker("rmi", f"{name}:1")


def test_a_stage_that_removed_and_made_anew_shows_only_the_new(
    sandbox: Sandbox, builder: dict[str, str], context: str, name: str
) -> None:
    build(sandbox, builder, f"{name}:1", context, "--target", "first")
    output = run(sandbox, f"{name}:1", "ls /srv/tree; stat -c %a /srv/made; ls /etc/motd || :")
    assert output == "fresh\n4755\n"
    sandbox.docker("rmi", f"{name}:1")


@pytest.mark.usefixtures("_copies")
def test_a_built_image_saves_with_the_digests_that_it_has(
    sandbox: Sandbox, builder: dict[str, str], context: str, name: str
) -> None:
    build(sandbox, builder, f"{name}:1", context)
    image = inspect(sandbox, f"{name}:1")
    saved = SavedImage(sandbox.docker("save", f"{name}:1").stdout)
    assert saved.id == image["Id"]
    assert [digest(layer) for layer in saved.layers] == image["RootFS"]["Layers"]
    names = {entry.name.rstrip("/") for entry in entries(saved.layers[-1])}
    assert {"srv/list", "srv/copied/.wh.b"} <= names
    sandbox.docker("rmi", f"{name}:1")


@pytest.mark.usefixtures("_copies")
def test_a_second_build_takes_every_step_from_the_cache(
    sandbox: Sandbox, builder: dict[str, str], context: str, name: str
) -> None:
    build(sandbox, builder, f"{name}:1", context)
    build(sandbox, builder, f"{name}:2", context)
    first, second = (inspect(sandbox, f"{name}:{tag}") for tag in (1, 2))
    assert first["RootFS"] == second["RootFS"]
    sandbox.docker("rmi", f"{name}:1", f"{name}:2")


def test_a_step_that_fails_leaves_nothing(
    sandbox: Sandbox, builder: dict[str, str], tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("context")
    (folder / "Dockerfile").write_text("FROM box:1\nRUN echo x > /x\nRUN exit 5\n")
    with pytest.raises(Exception, match="5"):
        build(sandbox, builder, f"{name}:1", str(folder), "--rm", "--force-rm")
    assert layer_mounts(sandbox) == []
