"""Fixtures that several of the unit tests use."""

from __future__ import annotations

from tests.unit.drivers import btrfs, make_driver, whole_trees

__all__ = ["btrfs", "make_driver", "whole_trees"]
