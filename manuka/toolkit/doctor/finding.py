"""One thing that the doctor has found out."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"


class Finding(NamedTuple):
    """What was found, how bad it is, and what to do.

    check: a short fixed name, for programs that read the JSON.
    level: ``ok``; ``note`` (good to know); ``warning`` (works, but not as it should); ``problem``
        (the engine will not come up, or containers will not run).
    text: one sentence.
    remedy: what to do, a sentence or two; empty where there is nothing to do.
    """

    check: str
    level: str
    text: str
    remedy: str = ""
