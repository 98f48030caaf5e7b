"""What has to outlive the plugin's process, but not the engine's: RUN_DIR.

::

    RUN_DIR/init.json    the last Init; it decides which directory a restarted plugin serves
    RUN_DIR/driver/      what the driver gets as `Settings.run_dir`
    RUN_DIR/driver.old/  the one of before, while an Init is under way

A directory that others than root can change is not used at all, for whoever writes ``init.json``
has the plugin tidy any directory as root: the log says so, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from typing import Iterator, Optional

from manuka.api.messages import InitRequest, MessageError, init_to_json, parse_init
from manuka.linux import private

log = logging.getLogger(__name__)


class RunDirectory:
    """The one at `path`, which is made when it is first written to.

    Callers see to it that one thread at a time is in here.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.driver_dir = os.path.join(path, "driver")
        self._aside = self.driver_dir + ".old"
        self._record = os.path.join(path, "init.json")

    def restore(self) -> Optional[InitRequest]:
        """The last Init, after undoing one that a kill cut short; None if there was none.

        A record that cannot be read, or that others than root can have written, is logged and
        counts as none.
        """
        try:
            private.check(self.path)
            self._undo_unfinished()
            request = parse_init(private.read(self._record))
            private.make_directories(self.driver_dir, 0o700)
            private.check(self.driver_dir)
            return request
        except FileNotFoundError:
            return None
        except private.Distrusted as error:
            log.error("the record of the last Init is not believed: %s; restart the engine", error)
        except (OSError, MessageError) as error:
            log.error("cannot use the record of the last Init, %s: %s", self._record, error)
        return None

    @contextlib.contextmanager
    def renewed(self) -> Iterator[bool]:
        """For an Init: an empty `driver_dir`; the old one comes back when the block fails.

        Gives False, and makes nothing, when the directory is not to be trusted.
        """
        private.make_directories(self.path, 0o700)
        try:
            private.check(self.path)
        except private.Distrusted as error:
            log.error("a restart of the plugin will need one of the engine: %s", error)
            yield False
            return
        if os.path.lexists(self.driver_dir):
            _discard(self._aside)  # an Init that was killed may have left it
            os.rename(self.driver_dir, self._aside)
        try:
            private.make_directories(self.driver_dir, 0o700)
            yield True
        except BaseException:
            _discard(self.driver_dir)
            if os.path.lexists(self._aside):
                os.rename(self._aside, self.driver_dir)
            raise
        _discard(self._aside)

    def record(self, request: InitRequest) -> None:
        """Keep an Init for `restore`.  Raises OSError, and leaves what was there."""
        private.write(self._record, init_to_json(request))

    def _undo_unfinished(self) -> None:
        if os.path.lexists(self._aside):
            _discard(self.driver_dir)
            os.rename(self._aside, self.driver_dir)


def _discard(path: str) -> None:
    """Delete a directory, or what is in its place; what cannot be is left."""
    with contextlib.suppress(OSError):
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
