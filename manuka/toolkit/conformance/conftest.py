"""What checks may ask for: the kit, a client for its plugin, layers, the guard."""

from __future__ import annotations

from typing import Iterator

import pytest

from manuka.toolkit.client import Client
from manuka.toolkit.conformance.kit import Guard, Kit
from manuka.toolkit.conformance.layers import Layers
from manuka.toolkit.conformance.plugin import kit_of


@pytest.fixture
def first_contact(request: pytest.FixtureRequest) -> Client:
    """A client for a socket on which somebody listens; nothing was said to them yet."""
    return kit_of(request.config).listening()


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Kit:
    """The run, with a plugin that answers."""
    kit = kit_of(request.config)
    kit.reachable()
    return kit


@pytest.fixture
def client(kit: Kit) -> Client:
    """Calls to a plugin whose driver is initialised."""
    return kit.ready()


@pytest.fixture
def layers(kit: Kit, client: Client) -> Iterator[Layers]:
    """Makes layers, and removes them after the check."""
    layers = Layers(client, kit.leftovers.append)
    yield layers
    layers.clean_up()


@pytest.fixture
def guard(kit: Kit) -> Iterator[Guard]:
    """The folder outside; the check fails when it is touched."""
    yield kit.guard
    kit.guard.assert_untouched()
