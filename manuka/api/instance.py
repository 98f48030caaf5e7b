"""The driver that is being served: made by ``GraphDriver.Init``, made again after a restart.

`manuka.api.routes` asks `driver()` once for each call.  Easy to get wrong: the engine sends Init
when *it* starts, not when the plugin does.  A plugin that was restarted under a running engine has
to know the last Init by itself, so `manuka.api.rundir` keeps it; that directory lies under
``/run``, for after a reboot the engine starts anew as well.
"""

from __future__ import annotations

import logging
import threading
from typing import Callable, Optional

from manuka.api.messages import InitRequest
from manuka.api.rundir import RunDirectory
from manuka.driver import DriverError, GraphDriver, Settings
from manuka.home import check_home

log = logging.getLogger(__name__)

NOT_INITIALISED = "GraphDriver.Init has not been called on this plugin; restart the engine"


class DriverInstance:
    """The one driver of a plugin's process.  Its methods may be called by any thread.

    factory: makes a driver from its settings, usually the driver's class.
    run_dir: a directory of the plugin's own, see `manuka.api.rundir`.  None, or one that others
        than root can change: a restart of the plugin asks for a restart of the engine.
    """

    def __init__(self, factory: Callable[[Settings], GraphDriver], run_dir: Optional[str]) -> None:
        self._factory = factory
        self._run_dir = None if run_dir is None else RunDirectory(run_dir)
        self._lock = threading.Lock()
        self._driver: Optional[GraphDriver] = None
        self._remembered: Optional[InitRequest] = None

    def restore(self) -> None:
        """Read the record of the last Init, if any; the driver is made when it is first needed."""
        if self._run_dir is None:
            return
        with self._lock:
            self._remembered = self._run_dir.restore()

    def driver(self) -> GraphDriver:
        """The driver in use.  Raises DriverError before Init; what making it raises, after."""
        driver = self._driver
        if driver is not None:
            return driver
        with self._lock:
            if self._driver is None:
                if self._remembered is None:
                    raise DriverError(NOT_INITIALISED)
                log.info("the engine was initialised before: serving %s", self._remembered.home)
                assert self._run_dir is not None
                self._driver = self._make(self._remembered, self._run_dir.driver_dir)
            return self._driver

    def initialise(self, request: InitRequest) -> None:
        """Make a driver for an engine that has just started, in place of the old one.

        On an error all is as before: that engine gives up, and the driver in use may have another.
        """
        with self._lock:
            check_home(request.home, request.id_maps)
            if self._run_dir is None:
                self._driver = self._make(request, None)
                return
            with self._run_dir.renewed() as kept:
                driver = self._make(request, self._run_dir.driver_dir if kept else None)
                if kept:
                    self._run_dir.record(request)
            self._driver = driver

    def _make(self, request: InitRequest, run_dir: Optional[str]) -> GraphDriver:
        check_home(request.home, request.id_maps)
        return self._factory(Settings(request.home, request.options, request.id_maps, run_dir))
