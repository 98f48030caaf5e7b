"""Checks of the plugin: where the engine finds it, who listens there, and what it answers.

Sources: ``pkg/plugins/discovery.go`` and ``pkg/plugins/plugins.go`` of the engine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from typing import Iterator

from manuka.toolkit.client import Client, ClientError, Refused, Unreachable
from manuka.toolkit.doctor.discovery import SOCKETS, Address
from manuka.toolkit.doctor.finding import NOTE, OK, PROBLEM, WARNING, Finding
from manuka.toolkit.doctor.patient import Patient
from manuka.toolkit.doctor.processes import Process, listeners

PATIENCE = 5.0  # seconds that a reply may take
_LONGEST_PATH = 107  # bytes, unix(7)
_START = "systemctl start manuka.socket, or manuka serve"


def discovery(patient: Patient) -> Iterator[Finding]:
    """What of the files that can name a plugin counts for the engine."""
    found = patient.discovery
    if found is None:
        return
    own = f"{SOCKETS}/{patient.name}.sock"
    for path, reason in found.passed_over:
        if path != own or found.source is not None:
            yield Finding(
                "plugin-path",
                NOTE,
                f"{path} is {reason}; the engine passes it over.",
                "Remove it, if it is to name the plugin no more; else mend it.",
            )
    for path in found.shadowed:
        yield Finding("plugin-spec", NOTE, f"{path} names an address too; {found.source} wins.")
    if found.source is None:
        why = dict(found.passed_over).get(own)
        there = os.path.exists(patient.reach(own))
        yield Finding(
            "socket",
            PROBLEM,
            f"{own} is no socket: it is {why.partition(',')[0]}."
            if why and there
            else f"There is no socket at {own} ({why or os.strerror(errno.ENOENT)}).",
            "Remove it, and start the plugin again."
            if why
            else f"Start the plugin before the engine: {_START}",
        )
    elif found.error is not None:
        yield Finding(
            "plugin-spec",
            PROBLEM,
            f"{found.source} names no address for the plugin: {found.error}. The engine stops at "
            "this file and looks at no other.",
            f"Mend it or remove it; the engine looks for {own} first.",
        )


def address(patient: Patient) -> Iterator[Finding]:
    """Whether the plugin's socket is there, and root's alone."""
    place = patient.address
    if place is None:
        return
    named = _named_by(patient)
    if place.socket is None:
        if place.encrypted:
            yield Finding(
                "plugin-address", NOTE, f"The engine calls the plugin at {place.url}{named}."
            )
        else:
            yield Finding(
                "plugin-address",
                WARNING,
                f"The engine calls the plugin at {place.url}{named}: everybody who reaches that "
                "address can order the plugin about, which is as good as being root.",
                "Let the plugin listen on a UNIX socket that is root's alone.",
            )
        return
    path = place.socket
    if len(os.fsencode(path)) > _LONGEST_PATH:
        yield Finding(
            "socket",
            PROBLEM,
            f"The path of the socket is longer than {_LONGEST_PATH} bytes: {path}{named}.",
            "Give the plugin a shorter name.",
        )
        return
    try:
        found = os.stat(patient.reach(path))
    except OSError as error:
        yield Finding(
            "socket",
            PROBLEM,
            f"There is no socket at {path}{named} ({error.strerror}).",
            f"Start the plugin before the engine: {_START}",
        )
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(
            "socket",
            PROBLEM,
            f"{path}{named} is no socket.",
            "Remove it, and start the plugin again.",
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
        yield Finding("socket", OK, f"{path} is there{named}, and root's alone.")


def listener(patient: Patient) -> Iterator[Finding]:
    """Who listens on the socket."""
    place = patient.address
    if place is None or (place.socket is not None and not _is_socket(patient.reach(place.socket))):
        return
    who = listeners(patient.reach(place.socket)) if place.socket is not None else []
    if who:
        names = ", ".join(str(one) for one in who)
        only_systemd = all(one.pid == 1 for one in who)
        more = "; the service starts at the first call" if only_systemd else ""
        yield Finding("listener", OK, f"On the socket listens {names}{more}.")
        return
    if place.socket is not None and os.geteuid() != 0:
        yield Finding(
            "listener", NOTE, "Only root can see who listens on the socket.", "Run this with sudo."
        )
        return
    failure = _failure(patient, place)
    if failure is not None:
        left = (
            "it is left from a plugin that has ended" if place.socket is not None else str(failure)
        )
        yield Finding(
            "listener",
            PROBLEM,
            f"Nobody listens on {place.socket or place.url}{_named_by(patient)}; {left}, and "
            "every look of the engine at it takes 15 seconds.",
            f"Start the plugin again: {_START}",
        )
    elif place.socket is not None:
        yield Finding("listener", NOTE, "Who listens on the socket is in another PID namespace.")


def handshake(patient: Patient) -> Iterator[Finding]:
    """Whether the plugin answers as one: the calls that change nothing."""
    place = patient.address
    if place is None or place.encrypted or _failure(patient, place) is not None:
        return
    client = Client(_target(patient, place), PATIENCE)
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
    if patient.address is not None and patient.address.socket is not None:
        with contextlib.suppress(OSError):
            found = listeners(patient.reach(patient.address.socket))
            return next((one for one in found if one.pid != 1), None)
    return None


def _named_by(patient: Patient) -> str:
    """The file that names the address, as a part of a sentence, unless it is the socket itself."""
    found = patient.discovery
    if found is None or found.address is None or found.source == found.address.socket:
        return ""
    return f" (which {found.source} names)"


def _target(patient: Patient, place: Address) -> str:
    return f"tcp://{place.host}" if place.socket is None else patient.reach(place.socket)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _failure(patient: Patient, place: Address) -> ClientError | None:
    """Why nobody can be called there; None: somebody can, or takes long."""
    try:
        Client(_target(patient, place), PATIENCE).connect().close()
    except Unreachable as error:
        return error
    except ClientError:
        pass
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
