"""Checks of the engine: its version, and whether it is told to use the plugin.

Sources: ``daemon/graphdriver/plugin.go`` and ``cmd/dockerd/daemon.go`` of the engine; its page of
deprecated features for 27 and 28.
"""

from __future__ import annotations

from typing import Iterator

from manuka.toolkit.doctor.finding import NOTE, OK, PROBLEM, WARNING, Finding
from manuka.toolkit.doctor.patient import Patient, config_of
from manuka.toolkit.engine import BUILT_IN

_ALLOW = "DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS"


def version(patient: Patient) -> Iterator[Finding]:
    """Whether the engine has the interface at all."""
    if patient.program is None:
        yield Finding(
            "engine-version",
            PROBLEM,
            "There is no dockerd on this machine.",
            "Install one from 18.09 to 27, as with: apt-get install docker.io",
        )
        return
    found = patient.version
    if found is None:
        yield Finding(
            "engine-version",
            WARNING,
            f"{patient.program} does not say which version it is.",
            "Engines from 18.09 to 27 have graphdriver plugins; see that it is one of them.",
        )
    elif (found.major, found.minor) >= (28, 0):
        yield Finding(
            "engine-version",
            PROBLEM,
            f"Docker {found.text} has no graphdriver plugins any more; they were removed in 28.0.",
            "Install an engine from 18.09 to 27, or use a containerd snapshotter.",
        )
    elif (found.major, found.minor) < (18, 9):
        yield Finding(
            "engine-version",
            WARNING,
            f"Docker {found.text} is older than 18.09, the oldest that is supported.",
            "Install an engine from 18.09 to 27.",
        )
    else:
        yield Finding("engine-version", OK, f"Docker {found.text} has graphdriver plugins.")
        if found.major == 27:
            yield from _allowed(patient)


def _allowed(patient: Patient) -> Iterator[Finding]:
    environment = patient.engine.environment() if patient.engine else None
    if environment is None:
        yield Finding(
            "engine-27",
            NOTE,
            f"Docker 27 refuses graphdriver plugins without {_ALLOW} in its environment.",
            f"Put Environment={_ALLOW}=1 into a drop-in of docker.service.",
        )
    elif environment.get(_ALLOW):
        yield Finding("engine-27", OK, f"{_ALLOW} is in the engine's environment.")
    else:
        yield Finding(
            "engine-27",
            PROBLEM,
            f"{_ALLOW} is not in the environment of the engine, which is Docker 27.",
            f"Put Environment={_ALLOW}=1 into a drop-in of docker.service, and restart it.",
        )


def config(patient: Patient) -> Iterator[Finding]:
    """Whether daemon.json can be read."""
    if patient.config_error is not None:
        yield Finding(
            "daemon-json",
            PROBLEM,
            f"{patient.config_path} cannot be read: {patient.config_error}.",
            "Mend it; the engine does not start with it.",
        )
    else:
        yield Finding("daemon-json", OK, f"{patient.config_path} can be read.")


def experimental(patient: Patient) -> Iterator[Finding]:
    """Whether experimental features are on, without which plugins are never asked."""
    if patient.setting("experimental", "--experimental") is True:
        yield Finding("experimental", OK, "Experimental features are switched on.")
    else:
        yield Finding(
            "experimental",
            PROBLEM,
            "Experimental features are off, so the engine asks no graphdriver plugin.",
            f'Put "experimental": true into {patient.config_path} and restart the engine.',
        )


def storage_driver(patient: Patient) -> Iterator[Finding]:
    """Whether the engine is told to use this driver, and in one place only."""
    name = patient.name
    flags = ("--storage-driver", "-s")
    flag = patient.engine.option(*flags) if patient.engine else None
    if flag is not None and "storage-driver" in patient.config:
        yield Finding(
            "storage-driver",
            PROBLEM,
            f"The storage driver is named on the command line and in {patient.config_path}; the "
            "engine refuses that.",
            "Keep one of the two.",
        )
        return
    wanted = patient.setting("storage-driver", *flags)
    if wanted == name:
        yield Finding("storage-driver", OK, f"The engine is told to use the driver {name}.")
    elif wanted is None:
        yield Finding(
            "storage-driver",
            PROBLEM,
            "The engine is not told to use the plugin; by itself it only tries its own drivers.",
            f'Put "storage-driver": "{name}" into {patient.config_path} and restart the engine.',
        )
    else:
        yield Finding(
            "storage-driver",
            PROBLEM,
            f"The engine is told to use the driver {wanted}, not {name}.",
            f'Put "storage-driver": "{name}" into {patient.config_path}, or ask about the other: '
            f"manuka doctor --name {wanted}",
        )


def driver_name(patient: Patient) -> Iterator[Finding]:
    """Whether an engine would ask a plugin of this name, and leave its mounts alone."""
    name = patient.name
    if name in BUILT_IN:
        yield Finding(
            "driver-name",
            PROBLEM,
            f"{name} is a driver that engines have built in; they never ask a plugin of that name.",
            "Serve the plugin by another name: manuka serve --name NAME",
        )
    elif name.endswith(("overlay", "overlay2")):
        yield Finding(
            "driver-name",
            WARNING,
            f"Engines unmount folders of drivers whose name ends like that of {name} by "
            "themselves, behind the plugin's back.",
            "Serve the plugin by a name that does not end in overlay or overlay2.",
        )


def snapshotter(patient: Patient) -> Iterator[Finding]:
    """Whether the engine leaves images to containerd, and storage drivers unused."""
    features = patient.config.get("features")
    if isinstance(features, dict) and features.get("containerd-snapshotter"):
        yield Finding(
            "containerd-snapshotter",
            PROBLEM,
            "The engine keeps images in containerd (features: containerd-snapshotter), and asks "
            "no graphdriver.",
            f"Take containerd-snapshotter out of {patient.config_path} and restart the engine.",
        )


def running(patient: Patient) -> Iterator[Finding]:
    """Whether an engine runs, and which one is examined."""
    engine = patient.engine
    others = [one for one in patient.engines if engine is None or one.pid != engine.pid]
    if engine is None:
        yield Finding(
            "engine-running",
            NOTE,
            "No engine runs; what is said of it comes from its files."
            if not others
            else f"No engine runs with {patient.config_path}; what is said of it comes from files.",
            "Its log says why it ended: journalctl -u docker -n 50",
        )
    else:
        apart = (
            ", in another mount namespace; all paths here are as it sees them"
            if patient.is_apart
            else ""
        )
        yield Finding("engine-running", OK, f"The engine runs as {engine}{apart}.")
    if others:
        names = ", ".join(f"{one} with {config_of(one)}" for one in others)
        which = f"only {engine} is examined" if engine else "none of them is examined"
        yield Finding(
            "other-engines",
            NOTE,
            f"Other engines run here: {names}; {which}.",
            f"manuka doctor --pid {others[0].pid}",
        )
