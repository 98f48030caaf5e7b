"""``python -m manuka`` is the command ``manuka``."""

from __future__ import annotations

import sys

from manuka.cli import main

if __name__ == "__main__":
    sys.exit(main())
