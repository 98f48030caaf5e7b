"""manuka.layers.idmap: owners in a container and on the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manuka.layers.idmap import IDENTITY, IdMapError, IdMaps, IdRange

MAPS = IdMaps(
    (IdRange(0, 100000, 1000), IdRange(1000, 1000, 1), IdRange(1001, 101001, 64535)),
    (IdRange(0, 200000, 65536),),
)


def test_without_maps_owners_stay_as_they_are():
    assert IDENTITY.identity
    assert IDENTITY.to_host(5, 2**32 - 2) == IDENTITY.to_container(5, 2**32 - 2) == (5, 2**32 - 2)
    assert IDENTITY.root == (0, 0)


@pytest.mark.parametrize(
    ("container", "host"),
    [
        ((0, 0), (100000, 200000)),
        ((999, 1), (100999, 200001)),
        ((1000, 65535), (1000, 265535)),
        ((1001, 7), (101001, 200007)),
        ((65535, 0), (165535, 200000)),
    ],
)
def test_an_owner_is_mapped_by_the_range_that_holds_it(container, host):
    assert MAPS.to_host(*container) == host
    assert MAPS.to_container(*host) == container
    assert MAPS.root == (100000, 200000)
    assert not MAPS.identity


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: MAPS.to_host(65536, 0), "container user id 65536 cannot be mapped.*/etc/subuid"),
        (lambda: MAPS.to_host(0, 65536), "container group id 65536 cannot be mapped.*/etc/subgid"),
        (lambda: MAPS.to_container(0, 200000), "host user id 0 cannot be mapped"),
        (lambda: MAPS.to_container(101000, 200000), "host user id 101000 cannot be mapped"),
        (lambda: MAPS.to_container(100000, 199999), "host group id 199999 cannot be mapped"),
    ],
)
def test_an_owner_outside_of_every_range_is_an_error(call, text):
    with pytest.raises(IdMapError, match=text):
        call()


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_mapping_there_and_back_changes_nothing(uid, gid):
    assert MAPS.to_container(*MAPS.to_host(uid, gid)) == (uid, gid)
