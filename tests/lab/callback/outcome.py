"""Writes what came of each host to the file $LAB_OUTCOME, as JSON, for tests to look at."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: outcome
type: notification
short_description: writes what came of each host to a file
description: For the tests of this repository.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "outcome"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict = {}

    def _of(self, result) -> dict:
        empty = {"ok": [], "changed": [], "failed": "", "unreachable": ""}
        return self._hosts.setdefault(result._host.get_name(), empty)

    def v2_runner_on_ok(self, result) -> None:
        kind = "changed" if result.is_changed() else "ok"
        self._of(result)[kind].append(result._task.name)

    def v2_runner_on_failed(self, result, ignore_errors: bool = False) -> None:
        answer = result._result
        text = " ".join(str(answer[key]) for key in ("msg", "stderr") if answer.get(key))
        self._of(result)["failed"] = f"{result._task.name}: {text}"

    def v2_runner_on_unreachable(self, result) -> None:
        self._of(result)["unreachable"] = str(result._result.get("msg"))

    def v2_playbook_on_stats(self, stats) -> None:
        with open(os.environ["LAB_OUTCOME"], "w") as file:
            json.dump(self._hosts, file, indent=1)
