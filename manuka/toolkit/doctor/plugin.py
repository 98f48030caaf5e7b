"""Checks of the plugin: its socket, who listens there, and what it answers.

Sources: ``pkg/plugins/discovery.go`` and ``pkg/plugins/plugins.go`` of the engine.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import stat
from typing import Iterator

from manuka.toolkit.client import Client, ClientError, Refused
from manuka.toolkit.doctor.finding import NOTE, OK, PROBLEM, WARNING, Finding
from manuka.toolkit.doctor.patient import PLUGIN_SOCKETS, PLUGIN_SPECS, Patient
from manuka.toolkit.doctor.processes import Process, listeners

PATIENCE = 5.0  # seconds that a reply may take
_LONGEST_PATH = 107  # bytes, unix(7)
_START = "systemctl start manuka.socket, or manuka serve"


def socket_file(patient: Patient) -> Iterator[Finding]:
    """Whether the socket is where an engine looks, and root's alone."""
    path = patient.socket
    for folder in PLUGIN_SPECS:
        for kind in ("spec", "json"):
            spec = f"{folder}/{patient.name}.{kind}"
            if os.path.exists(spec):
                yield Finding(
                    "plugin-spec",
                    NOTE,
                    f"{spec} names an address too; the socket below {PLUGIN_SOCKETS} wins.",
                )
    if len(os.fsencode(path)) > _LONGEST_PATH:
        yield Finding(
            "socket",
            PROBLEM,
            f"The path of the socket is longer than {_LONGEST_PATH} bytes: {path}.",
            "Give the plugin a shorter name.",
        )
        return
    try:
        found = os.stat(path)
    except OSError as error:
        yield Finding(
            "socket",
            PROBLEM,
            f"There is no socket at {path} ({error.strerror}).",
            f"Start the plugin before the engine: {_START}",
        )
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(
            "socket", PROBLEM, f"{path} is no socket.", "Remove it, and start the plugin again."
        )
    elif found.st_uid != 0 or found.st_mode & 0o022:
        yield Finding(
            "socket-owner",
            PROBLEM,
            f"{path} belongs to {_user(found.st_uid)} with mode {stat.S_IMODE(found.st_mode):04o}: "
            "others than root can order the plugin about, which is as good as being root.",
            f"chown root:root {path}; chmod 0600 {path}; and see that the plugin makes it so.",
        )
    else:
        yield Finding("socket", OK, f"{path} is there, and root's alone.")


def listener(patient: Patient) -> Iterator[Finding]:
    """Who listens on the socket."""
    if not _is_socket(patient.socket):
        return
    who = listeners(patient.socket)
    if who:
        names = ", ".join(str(one) for one in who)
        only_systemd = all(one.pid == 1 for one in who)
        more = "; the service starts at the first call" if only_systemd else ""
        yield Finding("listener", OK, f"On the socket listens {names}{more}.")
    elif os.geteuid() != 0:
        yield Finding(
            "listener", NOTE, "Only root can see who listens on the socket.", "Run this with sudo."
        )
    elif _refuses(patient.socket):
        yield Finding(
            "listener",
            PROBLEM,
            f"Nobody listens on {patient.socket}; it is left from a plugin that has ended, and "
            "every look of the engine at it takes 15 seconds.",
            f"Start the plugin again: {_START}",
        )
    else:
        yield Finding("listener", NOTE, "Who listens on the socket is in another PID namespace.")


def handshake(patient: Patient) -> Iterator[Finding]:
    """Whether the plugin answers as one: the calls that change nothing."""
    if not _is_socket(patient.socket) or _refuses(patient.socket):
        return
    client = Client(patient.socket, PATIENCE)
    try:
        implements = client.activate()
    except ClientError as error:
        yield Finding(
            "handshake",
            PROBLEM,
            f"The plugin does not answer as one within {PATIENCE:g} seconds: {error}.",
            "Look into its log: journalctl -u manuka -n 50; then restart it.",
        )
        return
    if "GraphDriver" not in implements:
        yield Finding(
            "handshake",
            PROBLEM,
            f"What listens there is no graphdriver plugin: it implements {implements!r}.",
            "Another plugin has taken the name; give one of them another name.",
        )
        return
    yield Finding("handshake", OK, "The plugin answers, and implements GraphDriver.")
    try:
        client.status()
    except Refused as refusal:
        yield Finding("handshake-status", NOTE, f"The plugin says of its state: {refusal.text}.")
    except ClientError as error:
        yield Finding(
            "handshake-status",
            WARNING,
            f"The plugin does not tell its state: {error}.",
            "Look into its log: journalctl -u manuka -n 50",
        )


def plugin_process(patient: Patient) -> Process | None:
    """The process behind the socket, if it can be told; not systemd, which only keeps it open."""
    with contextlib.suppress(OSError):
        return next((one for one in listeners(patient.socket) if one.pid != 1), None)
    return None


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _refuses(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
