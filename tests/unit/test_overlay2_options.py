"""manuka.overlay2.options and quota: what the user may set, and what the answer is to a mistake."""

from __future__ import annotations

import pytest

from manuka.driver import CreateOptions, DriverError
from manuka.overlay2.options import Options, layer_size, parse_options, parse_size
from tests.unit.mounts import file_system, needs_root
from tests.unit.stacks import create, inside, overlay2, start


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10", 10),
        ("1k", 1 << 10),
        ("1K", 1 << 10),
        ("10G", 10 << 30),
        ("10g", 10 << 30),
        ("10 G", 10 << 30),
        ("1.5g", 3 << 29),
        ("512m", 512 << 20),
        ("1MB", 1 << 20),
        ("1MiB", 1 << 20),
        ("2T", 2 << 40),
        ("1p", 1 << 50),
        ("7b", 7),
        ("7iB", 7),
    ],
)
def test_a_size_is_a_number_with_a_unit_of_1024(text, size):
    assert parse_size(text, "size") == size


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "G", "10x", "1,5g", "1.g", ".5g", "1  g", "1gg", "0x10", "1e3"]
)
def test_what_is_no_size_is_an_error(text):
    with pytest.raises(DriverError) as caught:
        parse_size(text, "overlay2.size")
    assert (
        str(caught.value)
        == f"storage option overlay2.size: {text!r} is no size such as 10G or 512m"
    )


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ([], Options()),
        (["overlay2.size=10G"], Options(size=10 << 30)),
        (["manuka.size=1k"], Options(size=1024)),
        (["OVERLAY2.Size = 1k "], Options(size=1024)),
        (["overlay2.override_kernel_check=true"], Options()),
        (["manuka.override_kernel_check=0"], Options()),
        (["manuka.sync=filesystem"], Options(sync=True)),
        (["manuka.sync=filesystem", "manuka.sync=none"], Options()),
        (["manuka.diff=naive", "manuka.sync=none"], Options(naive=True)),
        (["manuka.diff=auto"], Options()),
    ],
)
def test_options_are_read(options, result):
    assert parse_options(options) == result


ALL = "manuka.diff, manuka.override_kernel_check, manuka.size, manuka.sync"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("size", "storage option 'size': it has to be KEY=VALUE"),
        ("size=1g", f"overlay2: unknown option size; there are: {ALL}"),
        ("overlay2.mountopt=x", f"overlay2: unknown option overlay2.mountopt; there are: {ALL}"),
        ("overlay2.sync=none", f"overlay2: unknown option overlay2.sync; there are: {ALL}"),
        ("zfs.fsname=x", f"overlay2: unknown option zfs.fsname; there are: {ALL}"),
        ("manuka.size=big", "storage option manuka.size: 'big' is no size such as 10G or 512m"),
        ("manuka.sync=all", "storage option manuka.sync: 'all' is not one of: none, filesystem"),
        ("manuka.diff=", "storage option manuka.diff: '' is not one of: auto, naive"),
        (
            "overlay2.override_kernel_check=yes",
            "storage option overlay2.override_kernel_check: 'yes' is neither true nor false",
        ),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_is_right(option, text):
    with pytest.raises(DriverError) as caught:
        parse_options([option])
    assert str(caught.value) == text


def test_a_layers_own_size_goes_before_the_default():
    assert layer_size({}, default=7) == 7
    assert layer_size({"size": "1k"}, default=7) == 1024
    assert layer_size({"SIZE": "0"}, default=7) == 0
    with pytest.raises(DriverError, match="unknown storage option 'colour' for a layer"):
        layer_size({"size": "1k", "colour": "red"}, default=7)


NEEDS_XFS = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"


@needs_root
def test_a_size_for_all_layers_wants_xfs_with_quotas(tmp_path):
    with pytest.raises(DriverError, match=NEEDS_XFS) as caught:
        start(tmp_path, "overlay2.size=1g")
    assert str(tmp_path) in str(caught.value)


@needs_root
def test_a_size_for_one_layer_wants_xfs_with_quotas_and_leaves_nothing(tmp_path):
    with overlay2(tmp_path) as driver:
        with pytest.raises(DriverError, match=NEEDS_XFS):
            driver.create_read_write("one", None, CreateOptions(storage_opt={"size": "1g"}))
        assert not driver.exists("one")
        with pytest.raises(DriverError, match="unknown storage option 'x'"):
            driver.create_read_write("one", None, CreateOptions(storage_opt={"x": "1g"}))
        with pytest.raises(DriverError, match="only supported for containers' layers"):
            driver.create("one", None, CreateOptions(storage_opt={"size": "1g"}))
        create(driver, "one")


@needs_root
def test_a_layer_with_a_size_takes_no_more_than_that(tmp_path):
    with file_system(tmp_path, "mkfs.xfs", "-q", data="pquota") as disk, overlay2(disk) as driver:
        create(driver, "base")
        driver.create_read_write("top", "base", CreateOptions(storage_opt={"size": "50m"}))
        with inside(driver, "top") as tree:
            (tree / "fits").write_bytes(bytes(25 << 20))
            with pytest.raises(OSError, match=r"quota|space"):
                (tree / "more").write_bytes(bytes(50 << 20))
