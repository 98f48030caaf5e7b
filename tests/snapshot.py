"""What lies in a folder, for tests; the conformance kit looks with the same."""

from manuka.toolkit.snapshot import Snapshot, snapshot

__all__ = ["Snapshot", "snapshot"]
