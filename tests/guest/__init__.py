"""Tests in a virtual machine, by ``tests/guest/run``."""
