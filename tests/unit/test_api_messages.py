"""What the engine's JSON means, and what is said about JSON that means nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manuka.api.messages import (
    InitRequest,
    LayerRequest,
    MessageError,
    init_to_json,
    parse_init,
    parse_layer,
)
from manuka.layers.idmap import IdMaps, IdRange

HEX = "4f" * 32


def test_a_layer_message_of_an_engine_is_read() -> None:
    body = json.dumps(
        {
            "ID": HEX,
            "Parent": HEX + "-init",
            "MountLabel": "system_u:object_r:container_file_t:s0",
            "StorageOpt": {"size": "10G"},
        }
    )
    assert parse_layer(body.encode() + b"\n") == LayerRequest(
        HEX, HEX + "-init", "system_u:object_r:container_file_t:s0", {"size": "10G"}
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"ID":"a"}',
        b'{"id":"a"}',
        b'{"iD":"a","Unknown":[1,{}]}',
        b'{"ID":"x","id":"a"}',
        b'{"ID":"a","id":null,"Parent":null,"MountLabel":null,"StorageOpt":null}',
        b'{"ID":"a","parent":""}',
        b' \r\n{"ID":"a"}\t',
    ],
)
def test_keys_match_as_in_go(body: bytes) -> None:
    assert parse_layer(body) == LayerRequest("a")


def test_the_last_of_several_keys_counts_in_the_order_of_the_text() -> None:
    assert parse_layer(b'{"ID":"a","id":"b","ID":"c"}').layer_id == "c"
    assert parse_layer(b'{"ID":"a","ID":"c","id":"b"}').layer_id == "b"


@pytest.mark.parametrize(
    "layer_id", [HEX, HEX + "-init", "Base", "empty", "l1", "L", "0", "a.b_c-d", "x" * 255]
)
def test_plain_ids_are_taken(layer_id: str) -> None:
    assert parse_layer(json.dumps({"ID": layer_id}).encode()).layer_id == layer_id


@pytest.mark.parametrize(
    "layer_id",
    [
        "l",
        ".",
        "..",
        "../x",
        "a/b",
        "/",
        ".hidden",
        "-x",
        "_x",
        "a b",
        "a\n",
        "ä",
        "x" * 256,
        "a\0",
    ],
)
@pytest.mark.parametrize("field", ["ID", "Parent"])
def test_other_ids_are_refused(field: str, layer_id: str) -> None:
    message = {"ID": "good", field: layer_id}
    with pytest.raises(MessageError, match=f"^{field}: expected an id of letters"):
        parse_layer(json.dumps(message).encode())


@pytest.mark.parametrize("body", [b"", b" ", b"\n", b"\r\n\t"])
@pytest.mark.parametrize("parse", [parse_layer, parse_init])
def test_an_empty_body_is_explained_and_not_read_as_empty_fields(parse: Any, body: bytes) -> None:
    with pytest.raises(MessageError, match="retry came without the body; repeat the docker"):
        parse(body)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "malformed JSON at line 1, column 2: "),
        (b'{"ID": "a"', "malformed JSON at line 1, column 11: "),
        (b'{"ID": "a",\n"Parent" "b"}', "malformed JSON at line 2, column 10: "),
        (b'{"ID": "a"} {}', "malformed JSON at line 1, column 13: Extra data"),
        (b"{'ID': 'a'}", "malformed JSON at line 1, column 2: "),
        (b'{"ID": "\xff"}', "malformed JSON: byte 8 is not UTF-8"),
        (b'{"ID": NaN}', "malformed JSON: NaN is no JSON value"),
        (b'{"X": ' + b"[" * 100000, "malformed JSON: "),
        (b"null", "the message: expected an object, got null"),
        (b'"a"', 'the message: expected an object, got "a"'),
        (b"[]", "the message: expected an object, got a list"),
        (b"7", "the message: expected an object, got 7"),
        (b"{}", "ID: missing; expected the id of a layer"),
        (b'{"ID": ""}', "ID: missing; expected the id of a layer"),
        (b'{"ID": null}', "ID: missing; expected the id of a layer"),
        (b'{"ID": 5}', "ID: expected a string, got 5"),
        (b'{"ID": true}', "ID: expected a string, got true"),
        (b'{"ID": ' + b"9" * 1000000 + b"}", "malformed JSON: a number of 1000000 digits"),
        (b'{"ID": ["a"]}', "ID: expected a string, got a list"),
        (b'{"ID": {}}', "ID: expected a string, got an object"),
        (b'{"ID": "a", "Parent": 1.5}', "Parent: expected a string, got 1.5"),
        (b'{"ID": "a", "Parent": "a"}', "Parent: layer 'a' cannot be its own parent"),
        (b'{"ID": "a", "MountLabel": {}}', "MountLabel: expected a string, got an object"),
        (b'{"ID": "a", "MountLabel": "x\\u0000"}', "MountLabel: expected a string without NUL"),
        (b'{"ID": "a", "MountLabel": "\\ud800"}', "MountLabel: expected whole Unicode"),
        (b'{"ID": "a", "StorageOpt": []}', "StorageOpt: expected an object of strings"),
        (b'{"ID": "a", "StorageOpt": {"size": 5}}', r"StorageOpt\['size'\]: expected a string"),
    ],
)  # fmt: skip
def test_a_malformed_layer_message_is_explained(body: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match="^" + complaint):
        parse_layer(body)


def test_an_init_message_of_an_engine_is_read() -> None:
    body = b'{"Home":"/var/lib/docker/manuka","Opts":null,"UIDMaps":null,"GIDMaps":null}\n'
    assert parse_init(body) == InitRequest("/var/lib/docker/manuka")
    body = (
        b'{"Home":"/d/1.1/m","Opts":["manuka.sync=none","a=b=c"],'
        b'"UIDMaps":[{"container_id":0,"host_id":100000,"size":65536}],'
        b'"GIDMaps":[{"container_id":0,"host_id":5,"size":1},'
        b'{"container_id":1,"host_id":100000,"size":9}]}'
    )
    assert parse_init(body) == InitRequest(
        "/d/1.1/m",
        ("manuka.sync=none", "a=b=c"),
        IdMaps((IdRange(0, 100000, 65536),), (IdRange(0, 5, 1), IdRange(1, 100000, 9))),
    )


def _init(**fields: Any) -> bytes:
    return json.dumps(dict({"Home": "/h"}, **fields)).encode()


def _owners(first: Any, host: Any, size: Any) -> Any:
    return {"container_id": first, "host_id": host, "size": size}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{}", "Home: missing; expected the driver's folder"),
        (_init(Home=""), "Home: missing"),
        (_init(Home=7), "Home: expected a string, got 7"),
        (_init(Home="var/lib"), 'Home: expected an absolute path other than /, got "var/lib"'),
        (_init(Home="/"), "Home: expected an absolute path other than /"),
        (_init(Home="//"), "Home: expected an absolute path other than /"),
        (_init(Home="/a/../b"), "Home: expected a path without .* it could be '/b'"),
        (_init(Home="/a/"), "Home: expected a path without .* it could be '/a'"),
        (_init(Home="//a"), "Home: expected a path without .* it could be '/a'"),
        (_init(Home="/a/./b"), "Home: expected a path without .* it could be '/a/b'"),
        (_init(Home="/a\0"), "Home: expected a string without NUL"),
        (_init(Opts="a=b"), 'Opts: expected a list, got "a=b"'),
        (_init(Opts={"a": "b"}), "Opts: expected a list, got an object"),
        (_init(Opts=["a=b", 5]), r"Opts\[1\]: expected a string, got 5"),
        (_init(Opts=[None]), r"Opts\[0\]: expected a string, got null"),
        (_init(UIDMaps={}), "UIDMaps: expected a list, got an object"),
        (_init(UIDMaps=[1]), r"UIDMaps\[0\]: expected an object, got 1"),
        (_init(GIDMaps=[_owners(-1, 0, 1)]), r"GIDMaps\[0\].container_id: expected .*, got -1"),
        (_init(UIDMaps=[_owners(0, 0.5, 1)]), r"UIDMaps\[0\].host_id: expected .*, got 0.5"),
        (_init(UIDMaps=[_owners(0, 1, True)]), r"UIDMaps\[0\].size: expected .*, got true"),
        (_init(UIDMaps=[_owners(0, "1", 1)]), r"UIDMaps\[0\].host_id: expected .*, got \"1\""),
        (_init(UIDMaps=[_owners(0, 1, 0)]), r"UIDMaps\[0\].size: expected at least 1, got 0"),
        (_init(UIDMaps=[_owners(0, 1, 2**32)]), r"UIDMaps\[0\]: the range ends behind"),
        (
            _init(UIDMaps=[_owners(0, 100, 10), _owners(9, 200, 5)]),
            "UIDMaps: two ranges both have container id 9",
        ),
        (
            _init(GIDMaps=[_owners(50, 105, 5), _owners(0, 100, 10)]),
            "GIDMaps: two ranges both have host id 105",
        ),
    ],
)
def test_a_malformed_init_message_is_explained(body: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match="^" + complaint):
        parse_init(body)


_RANGES = st.lists(st.integers(1, 1000), max_size=5).map(
    lambda sizes: tuple(IdRange(n * 1000, 10**6 + n * 1000, size) for n, size in enumerate(sizes))
)
_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))


@given(st.builds(InitRequest, st.just("/h ö"), st.lists(_TEXT).map(tuple),
                 st.builds(IdMaps, _RANGES, _RANGES)))  # fmt: skip
def test_what_is_written_for_an_init_is_read_back(request_: InitRequest) -> None:
    assert parse_init(init_to_json(request_)) == request_


@given(st.binary(max_size=60))
def test_no_bytes_raise_another_error(body: bytes) -> None:
    for parse in (parse_layer, parse_init):
        try:
            parse(body)  # type: ignore[operator]
        except MessageError:
            pass


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_KEYS = ["ID", "Parent", "MountLabel", "StorageOpt", "Home", "Opts", "UIDMaps", "gidmaps"]


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON))
def test_no_values_raise_another_error(message: Any) -> None:
    body = json.dumps(message).encode()
    for parse in (parse_layer, parse_init):
        try:
            parse(body)  # type: ignore[operator]
        except MessageError:
            pass
