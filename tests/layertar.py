"""Tars of layers for tests; the conformance kit makes its own with the same."""

from manuka.toolkit.layertar import MTIME, LayerTar, content, entries

__all__ = ["MTIME", "LayerTar", "content", "entries"]
