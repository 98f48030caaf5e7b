"""``manuka doctor``: why an engine won't come up.  `manuka.toolkit.doctor` has the checks."""

from __future__ import annotations

import argparse
import os
import sys

DESCRIPTION = (
    "Tell why an engine won't come up on a plugin. Looks at engine, plugin, mounts and disk, "
    "and changes nothing. Exit code 1: there are problems."
)

EXAMPLES = """\
examples:
  manuka doctor
  manuka doctor --name mine --json
  manuka doctor --pid 4711
      one of several engines, whose files are looked at as it sees them
  manuka doctor --engine /opt/docker-26/dockerd --config /tmp/daemon.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
    parser.add_argument(
        "--name", default="manuka", help="the plugin's name for the engine (default: %(default)s)"
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="the plugin's socket (default: where an engine looks for that name)",
    )
    parser.add_argument(
        "--engine", metavar="PATH", help="the dockerd (default: the running one, or on PATH)"
    )
    parser.add_argument(
        "--config",
        metavar="PATH",
        help="the engine's daemon.json (default: the running one's, or /etc/docker/daemon.json)",
    )
    parser.add_argument(
        "--pid",
        type=int,
        help="the process of the engine, where several run (default: the one with --config, or the "
        "machine's own)",
    )
    parser.add_argument(
        "--deep", action="store_true", help="look at every file of every layer, which takes long"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    from manuka.toolkit.doctor.patient import Patient
    from manuka.toolkit.doctor.report import as_json, as_text, examine, is_healthy

    patient = Patient(
        arguments.name,
        arguments.config,
        arguments.engine,
        arguments.socket,
        arguments.deep,
        arguments.pid,
    )
    findings = examine(patient)
    if arguments.json:
        print(as_json(findings))
    else:
        print(as_text(findings, sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return 0 if is_healthy(findings) else 1
