"""``manuka sandbox``: a private engine.  `manuka.toolkit.command` does the work."""

from __future__ import annotations

import argparse

from manuka.commands.arguments import add_storage_opt, check_storage_opts

DESCRIPTION = """\
Start a private Docker engine on a driver, apart from any other engine, and run COMMAND with it. The
engine reaches no network, so no registry: it has the images that --image and --load give it, or
else a small one called busybox. Containers have no network unless --network gives them one.
"""

EXAMPLES = """\
examples:
  manuka sandbox
      a container is run, and shown with the layers that it is made of
  manuka sandbox -- bash
      a shell in which docker talks to a private engine on manuka
  manuka sandbox --driver overlay2 -- docker info
      the same on the engine's own driver, to compare
  manuka sandbox --driver manuka.vfs:Vfs -- docker info
      this package's vfs; --driver vfs is the engine's own
  manuka sandbox --driver mydriver:Driver -- docker run --rm busybox true
  manuka sandbox --image debian:12 --load saved.tar -- docker images
      an image of this machine's engine, and those in a file
  manuka sandbox --network -- sh -c 'docker run -d -p 8080:80 busybox httpd -f -p 80; bash'
      in the shell, the container answers at http://127.0.0.1:8080/
  manuka sandbox --engine /opt/docker-26/dockerd --keep --data-dir /mnt/disk
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
    parser.add_argument(
        "--driver",
        default="manuka",
        help="'manuka', a driver that the engine has built in, such as overlay2 or vfs, or one of "
        "your own as for serve (default: %(default)s)",
    )
    parser.add_argument("--engine", metavar="PATH", help="the dockerd to run (default: on PATH)")
    add_storage_opt(parser, "an option for the driver, through the engine; may be repeated")
    parser.add_argument(
        "--network",
        action="store_true",
        help="a bridge in a network namespace that engine and COMMAND share: published ports are "
        "at 127.0.0.1 for COMMAND, and nothing outside is reached",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="REF",
        help="an image of this machine's engine, or busybox; may be repeated",
    )
    parser.add_argument(
        "--load",
        action="append",
        default=[],
        metavar="FILE",
        help="a tar of docker save, or of a root file system; may be repeated",
    )
    parser.add_argument("--keep", action="store_true", help="keep images and layers afterwards")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="the folder to make its data folder in (default: /var/tmp)",
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="COMMAND",
        help="what to run, with DOCKER_HOST set (default: show a container and its layers)",
    )


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    check_storage_opts(arguments.storage_opt)

    from manuka.toolkit.command import run_sandbox

    return run_sandbox(
        engine=arguments.engine,
        driver=arguments.driver,
        storage_opts=arguments.storage_opt,
        data_dir=arguments.data_dir,
        keep=arguments.keep,
        command=arguments.arguments,
        network=arguments.network,
        references=arguments.image,
        files=arguments.load,
    )
