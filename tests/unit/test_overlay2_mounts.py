"""manuka.overlay2: Get and Put, and what is mounted in between."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from manuka.driver import DriverError
from manuka.linux.mount import unmount
from manuka.linux.mountinfo import mounts, mounts_below
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root, unmounted_after
from tests.unit.stacks import apply, create, inside, overlay2, start

pytestmark = needs_root


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def run_dir(tmp_path):
    """What outlives the plugin's process, but not an engine's start."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def driver(tmp_path, run_dir):
    """A driver with the layers one and two."""
    with unmounted_after(tmp_path):
        driver = start(tmp_path, run_dir=run_dir)
        apply(driver, "one", None, LayerTar().file("file", b"one"))
        create(driver, "two", "one")
        yield driver


def mount_of(path):
    found = [mount for mount in mounts() if mount.mount_point == str(path)]
    assert len(found) == 1, f"{len(found)} mounts at {path}"
    return found[0]


def mounted(home):
    """The ids of the mounted layers."""
    return sorted(path.split("/")[-2] for path in mounts_below(str(home)))


# --- counting ------------------------------------------------------------------------------------


def test_a_layer_stays_mounted_until_it_was_put_as_often_as_it_was_got(driver, home):
    paths = {driver.get("two") for _ in range(3)}
    assert paths == {str(home / "two" / "merged")}
    for _ in range(2):
        driver.put("two")
        assert mounted(home) == ["two"]
    driver.put("two")
    assert mounted(home) == []
    assert not (home / "two" / "merged").exists()
    assert driver.get("two") in paths


def test_a_base_layer_is_not_mounted(driver, home):
    for _ in range(2):
        assert driver.get("one") == str(home / "one" / "diff")
    driver.put("one")
    driver.put("one")
    driver.put("one")
    assert mounted(home) == []
    assert driver.get("one") == str(home / "one" / "diff")


def test_putting_what_is_not_mounted_or_not_there_is_no_error(driver):
    driver.put("two")
    driver.put("nobody")
    assert driver.get("two")


def test_getting_what_is_not_there_is_an_error_that_names_it(driver):
    with pytest.raises(DriverError, match="there is no layer nobody"):
        driver.get("nobody")


def test_64_at_once_get_one_mount(driver, home):
    barrier = threading.Barrier(64)
    got = []

    def work():
        barrier.wait()
        got.append(driver.get("two"))

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [str(home / "two" / "merged")] * 64
    mount_of(got[0])
    for _ in range(63):
        driver.put("two")
    assert mounted(home) == ["two"]
    driver.put("two")
    assert mounted(home) == []


def test_getting_and_putting_leaves_nothing_behind(driver, home, run_dir):
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        driver.get("two")
        driver.get("two")
        driver.put("two")
        driver.put("two")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.listdir(run_dir / "counts") == []
    assert mounted(home) == []


# --- starting again ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_plugin_started_again_knows_how_often_a_layer_was_got(driver, tmp_path, run_dir, count):
    home = tmp_path / "home"
    for _ in range(count):
        path = driver.get("two")
    driver = start(tmp_path, run_dir=run_dir)
    assert driver.get("two") == path
    mount_of(path)
    for _ in range(count):
        driver.put("two")
        assert mounted(home) == ["two"]
    driver.put("two")
    assert mounted(home) == []


def test_a_count_that_went_down_is_known_too(driver, tmp_path, run_dir):
    for _ in range(3):
        driver.get("two")
    driver.put("two")
    driver = start(tmp_path, run_dir=run_dir)
    driver.put("two")
    assert mounted(tmp_path / "home") == ["two"]
    driver.put("two")
    assert mounted(tmp_path / "home") == []


def test_an_engine_started_again_counts_from_one(driver, tmp_path, run_dir):
    for _ in range(3):
        driver.get("two")
    (run_dir / "counts" / "two").unlink()  # an engine's start empties the folder
    driver = start(tmp_path, run_dir=run_dir)
    driver.get("two")
    driver.put("two")
    assert mounted(tmp_path / "home") == ["two"]
    driver.put("two")
    assert mounted(tmp_path / "home") == []


def test_a_lone_put_unmounts_what_an_engine_that_died_left(driver, tmp_path):
    driver.get("two")
    start(tmp_path).put("two")
    assert mounted(tmp_path / "home") == []


def test_without_a_folder_for_counts_a_mount_counts_once(driver, tmp_path):
    for _ in range(3):
        driver.get("two")
    driver = start(tmp_path)
    driver.get("two")
    driver.put("two")
    driver.put("two")
    assert mounted(tmp_path / "home") == []


@pytest.mark.parametrize("record", ["", "two", "-3", "0"])
def test_a_damaged_record_counts_as_one(driver, tmp_path, run_dir, record):
    driver.get("two")
    (run_dir / "counts" / "two").write_text(record)
    driver = start(tmp_path, run_dir=run_dir)
    driver.put("two")
    assert mounted(tmp_path / "home") == []


def test_a_record_without_a_mount_is_not_believed(driver, tmp_path, run_dir):
    driver.get("two")
    driver.get("two")
    unmount(str(tmp_path / "home" / "two" / "merged"))
    driver = start(tmp_path, run_dir=run_dir)
    driver.get("two")
    driver = start(tmp_path, run_dir=run_dir)
    driver.put("two")
    assert mounted(tmp_path / "home") == []


def test_a_mount_point_left_by_a_reboot_is_no_obstacle(driver, home):
    (home / "two" / "merged").mkdir()
    driver.put("two")
    with inside(driver, "two") as tree:
        assert (tree / "file").read_text() == "one"


def test_cleanup_unmounts_every_layer_and_forgets_the_counts(driver, tmp_path, home):
    create(driver, "three", "two")
    driver.get("two")
    driver.get("two")
    driver.get("three")
    beside = tmp_path / "home2"
    with overlay2(tmp_path / "beside") as other:
        beside = tmp_path / "beside" / "home"
        create(other, "one")
        create(other, "two", "one")
        other.get("two")
        driver.cleanup()
        assert mounted(beside) == ["two"]
    assert mounted(home) == []
    driver.get("two")
    assert mounted(home) == ["two"]
    driver.put("two")
    assert mounted(home) == []


def test_cleanup_unmounts_what_is_mounted_inside_of_layers(driver, home):
    with inside(driver, "two") as tree:
        (tree / "sub").mkdir()
    tree = driver.get("two")
    os.system(f"mount -t tmpfs none {tree}/sub")
    driver.cleanup()
    assert mounts_below(str(home)) == []


# --- how it is mounted ---------------------------------------------------------------------------


def test_a_layer_without_children_can_be_written_to(driver):
    with inside(driver, "two") as tree:
        (tree / "new").write_text("new")
    with inside(driver, "two") as tree:
        assert sorted(os.listdir(tree)) == ["file", "new"]


def test_a_layer_with_children_is_mounted_read_only(driver):
    with inside(driver, "two") as tree:
        (tree / "new").write_text("new")
    create(driver, "three", "two")
    with inside(driver, "two") as tree:
        assert sorted(os.listdir(tree)) == ["file", "new"]
        with pytest.raises(OSError, match="Read-only file system"):
            (tree / "newer").write_text("newer")
        assert "upperdir" not in mount_of(tree).super_options


def test_the_mount_names_its_layers_folders(driver, home):
    with inside(driver, "two") as tree:
        options = mount_of(tree).super_options.split(",")
    short = (home / "one" / "link").read_text()
    assert f"lowerdir={home}/l/{short}" in options
    assert f"upperdir={home}/two/diff" in options
    assert f"workdir={home}/two/work" in options


@pytest.mark.parametrize("parameter", ["redirect_dir", "metacopy", "index"])
def test_what_would_hide_a_layers_contents_is_off_whatever_the_machines_default(
    driver, parameter, request
):
    file = f"/sys/module/overlay/parameters/{parameter}"
    with open(file) as current:
        before = current.read()
    if before.strip() == "N":
        try:
            with open(file, "w") as current:
                current.write("Y")
        except OSError:
            pytest.skip(f"{file} cannot be changed here")

    def restore():
        with open(file, "w") as current:
            current.write(before)

    request.addfinalizer(restore)
    apply(driver, "base", None, LayerTar().folder("d").file("d/big", bytes(range(256)) * 16))
    create(driver, "top", "base")
    with inside(driver, "top") as tree:
        os.chmod(tree / "d" / "big", 0o600)
        with pytest.raises(OSError, match="Invalid cross-device link"):
            os.rename(tree / "d", tree / "e")
    assert driver.diff_size("top", "base") == 4096
    assert ("Using metacopy", "false") in driver.status()
    assert ("Native Overlay Diff", "true") in driver.status()


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", 'a"b', "a b", "ä", "a:b,c\\:d", "%41"])
def test_the_homes_path_may_hold_any_character(tmp_path, name):
    (tmp_path / name).mkdir()
    with overlay2(tmp_path / name) as driver:
        apply(driver, "one", None, LayerTar().file("file", b"one"))
        create(driver, "two", "one")
        with inside(driver, "two") as tree:
            assert (tree / "file").read_text() == "one"
            (tree / "new").write_text("new")
        create(driver, "three", "two")
        with inside(driver, "two") as tree:
            assert sorted(os.listdir(tree)) == ["file", "new"]
        assert mounted(tmp_path / name / "home") == []


def test_the_working_folder_of_the_process_stays(driver, tmp_path):
    before = os.getcwd()
    for number in range(90):
        create(driver, f"{number:064}", f"{number - 1:064}" if number else "two")
    with inside(driver, f"{89:064}") as tree:
        assert (tree / "file").read_text() == "one"
        assert os.getcwd() == before


def test_a_label_that_the_kernel_does_not_know_is_a_clear_error_and_leaves_nothing(driver, home):
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("this machine knows labels")
    with pytest.raises(DriverError, match=f"with the label {label} failed: Invalid argument"):
        driver.get("two", label)
    assert mounted(home) == []
    assert not (home / "two" / "merged").exists()
    assert driver.get("two")


@pytest.mark.parametrize("deep", [False, True])
def test_a_label_stands_last_in_the_mount_data_and_in_quotes(driver, home, deep, monkeypatch):
    """As the kernel wants it, for a label has commas.  Where no SELinux runs, none can be tried."""
    seen = []
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    if deep:
        for number in range(90):
            create(driver, f"{number:064}", f"{number - 1:064}" if number else "two")
    layer_id = f"{89:064}" if deep else "two"
    for name in ("mount", "mount_from"):
        monkeypatch.setattr(f"manuka.overlay2.mounts.{name}", lambda *given: seen.append(given))
    (home / layer_id / "work" / "work").mkdir()
    driver.get(layer_id, label)
    ((*_, data),) = seen
    assert data.endswith(f'/work,context="{label}"')
    assert data.count("context=") == 1


def test_a_label_that_does_not_fit_is_a_clear_error_and_leaves_nothing(driver, home):
    label = "system_u:object_r:container_file_t:s0:" + ",".join(f"c{n}" for n in range(900))
    with pytest.raises(DriverError, match="mount data is longer than a page"):
        driver.get("two", label)
    assert mounted(home) == []
    assert not (home / "two" / "merged").exists()
    driver.put("two")
    assert driver.get("two")
    driver.put("two")
    assert mounted(home) == []


def test_a_failed_mount_is_a_clear_error_and_leaves_nothing(driver, home):
    (home / "two" / "work").rmdir()
    with pytest.raises(DriverError, match=r"mounting layer two on 1 layers failed: "):
        driver.get("two")
    assert mounted(home) == []
    assert not (home / "two" / "merged").exists()
    (home / "two" / "work").mkdir()
    assert driver.get("two")


def test_a_layer_can_be_put_while_its_files_are_in_use(driver, home):
    path = driver.get("two")
    with open(f"{path}/file", "rb") as file:
        driver.put("two")
        assert mounted(home) == []
        assert file.read() == b"one"
    assert driver.get("two") == path


def test_a_copy_of_the_mount_in_another_namespace_does_not_keep_it_busy(driver, home):
    path = driver.get("two")
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout.readline() == b"ready\n"
            driver.put("two")
            assert not (home / "two" / "merged").exists()
            assert driver.get("two") == path
            driver.put("two")
            driver.remove("two")
            driver.remove("two")
        finally:
            other.kill()
