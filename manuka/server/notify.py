"""Telling systemd how the service fares (``sd_notify(3)``), without its library.

Used by `manuka.server.run`.  Easy to get wrong: a failure here must not be one of the plugin, so
nothing raises.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Optional

log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def notify(state: str) -> None:
    """Send `state` to the service manager; does nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        log.warning("cannot tell the service manager %s: %s", state, error)


def watchdog_interval() -> Optional[float]:
    """Seconds between two signs of life, half of what the unit's WatchdogSec= allows; or None."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        limit = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return limit / 2e6 if limit > 0 else None
