"""The driver that is being served: made by ``GraphDriver.Init``, made again after a restart.

`manuka.api.routes` asks `driver()` once for each call.  Easy to get wrong: the engine sends Init
when *it* starts, not when the plugin does.  A plugin that was restarted under a running engine has
to know the last Init by itself, so it is kept in ``RUN_DIR/init.json``; the folder lies under
``/run``, for after a reboot the engine starts anew as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from typing import Callable, Iterator, Optional

from manuka.api.messages import InitRequest, MessageError, init_to_json, parse_init
from manuka.driver import DriverError, GraphDriver, Settings

log = logging.getLogger(__name__)

NOT_INITIALISED = "GraphDriver.Init has not been called on this plugin; restart the engine"


class DriverInstance:
    """The one driver of a plugin's process.  Its methods may be called by any thread.

    factory: makes a driver from its settings, usually the driver's class.
    run_dir: a folder of the plugin's own, made when missing: ``init.json`` is the last Init, and
        ``driver/`` is what the driver gets as `Settings.run_dir`.  None: a restart of the plugin
        asks for a restart of the engine.
    """

    def __init__(self, factory: Callable[[Settings], GraphDriver], run_dir: Optional[str]) -> None:
        self._factory = factory
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._driver: Optional[GraphDriver] = None
        self._remembered: Optional[InitRequest] = None

    def restore(self) -> None:
        """Read the record of the last Init, if any; the driver is made when it is first needed.

        A record that cannot be read is logged and counts as none.
        """
        if self._run_dir is None:
            return
        with self._lock:
            self._undo_unfinished_init()
            self._remembered = self._read_record()

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
                self._driver = self._make(self._remembered)
            return self._driver

    def initialise(self, request: InitRequest) -> None:
        """Make a driver for an engine that has just started, in place of the old one.

        On an error all is as before: that engine gives up, and the driver in use may have another.
        """
        with self._lock, self._fresh_driver_dir():
            driver = self._make(request)
            self._write_record(request)
            self._driver, self._remembered = driver, request

    def _make(self, request: InitRequest) -> GraphDriver:
        run_dir = self._driver_dir
        if run_dir is not None:
            os.makedirs(run_dir, mode=0o700, exist_ok=True)
        return self._factory(Settings(request.home, request.options, request.id_maps, run_dir))

    # --- files ------------------------------------------------------------------------------------

    @property
    def _driver_dir(self) -> Optional[str]:
        return None if self._run_dir is None else os.path.join(self._run_dir, "driver")

    @property
    def _record(self) -> str:
        assert self._run_dir is not None
        return os.path.join(self._run_dir, "init.json")

    @contextlib.contextmanager
    def _fresh_driver_dir(self) -> Iterator[None]:
        """An empty folder for the driver; the old one comes back when the block fails."""
        current = self._driver_dir
        if current is None:
            yield
            return
        aside = current + ".old"
        if os.path.isdir(current):
            shutil.rmtree(aside, ignore_errors=True)  # an Init that was killed may have left it
            os.rename(current, aside)
        try:
            os.makedirs(current, mode=0o700)
            yield
        except BaseException:
            shutil.rmtree(current, ignore_errors=True)
            if os.path.isdir(aside):
                os.rename(aside, current)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def _undo_unfinished_init(self) -> None:
        current = self._driver_dir
        if current is not None and os.path.isdir(current + ".old"):
            shutil.rmtree(current, ignore_errors=True)
            os.rename(current + ".old", current)

    def _read_record(self) -> Optional[InitRequest]:
        try:
            with open(self._record, "rb") as file:
                return parse_init(file.read())
        except FileNotFoundError:
            return None
        except (OSError, MessageError) as error:
            log.error("cannot use the record of the last Init, %s: %s", self._record, error)
            return None

    def _write_record(self, request: InitRequest) -> None:
        if self._run_dir is None:
            return
        unfinished = self._record + ".new"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(init_to_json(request))
        os.replace(unfinished, self._record)
