"""The listening socket, made or passed on."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from manuka.server.sockets import SocketError, listen, passed_listener

ROOT = Path(__file__).resolve().parents[2]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "m.sock"
    old_umask = os.umask(0)
    try:
        listener = listen(str(path))
        assert os.umask(0) == 0
    finally:
        os.umask(old_umask)
    assert _mode(path) == 0o600
    assert _mode(path.parent) == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()
    assert path.parent.exists()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    listen(str(tmp_path / "m.sock")).close()
    assert _mode(tmp_path) == 0o755


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stale = path.stat().st_ino, path.stat().st_ctime_ns
    listener = listen(str(path))
    assert (path.stat().st_ino, path.stat().st_ctime_ns) != stale
    listener.close()


def test_a_live_socket_is_refused_with_its_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "m.sock")
    listener = listen(path)
    with pytest.raises(SocketError) as caught:
        listen(path)
    assert str(caught.value) == f"another process is listening on {path}: pid {os.getpid()}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.close()


def test_a_live_socket_with_a_full_queue_is_refused_too(tmp_path: Path) -> None:
    path = str(tmp_path / "m.sock")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        with pytest.raises(SocketError, match="another process is listening"):
            listen(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_not_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(SocketError, match="is in the way: it is no socket"):
        listen(str(path))
    assert os.path.lexists(str(path))


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))
    listen(str(longest)).close()
    with pytest.raises(SocketError, match="longer than 107 bytes"):
        listen(str(longest) + "y")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketError, match=r"cannot listen on .*file/m\.sock: "):
        listen(str(tmp_path / "file" / "m.sock"))


def test_a_socket_that_another_has_put_in_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    ours = listen(str(path))
    path.rename(tmp_path / "aside")
    theirs = listen(str(path))
    ours.close()
    assert path.exists()
    theirs.close()


def test_a_socket_that_is_gone_at_the_end_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.sock"
    listener = listen(str(path))
    path.unlink()
    listener.close()
    assert "cannot remove the socket" in caplog.text


# --- systemd --------------------------------------------------------------------------------------

_CHILD = """
import os, sys
from manuka.errors import ManukaError
from manuka.server.sockets import listen
os.environ["LISTEN_PID"] = os.environ["LISTEN_PID"].replace("SELF", str(os.getpid()))
try:
    listener = listen(sys.argv[1])
except ManukaError as error:
    print("refused:", error)
    sys.exit()
print(listener.address, os.get_inheritable(listener.sock.fileno()))
print([name for name in os.environ if name.startswith("LISTEN_")])
listener.close()
"""


def _activate(fd: int, path: Path, pid: str = "SELF", count: str = "1") -> List[str]:
    """What the child says that systemd hands `fd` to, as its descriptor 3."""
    environ = dict(os.environ, PYTHONPATH=str(ROOT), LISTEN_PID=pid, LISTEN_FDS=count)
    environ["LISTEN_FDNAMES"] = "m.socket"
    result = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 3<&0', "-", sys.executable, "-c", _CHILD, str(path)],
        env=environ,
        stdin=fd,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return result.stdout.splitlines()


def test_the_socket_that_systemd_passes_is_used_and_left_in_place(tmp_path: Path) -> None:
    path = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        assert _activate(listening.fileno(), tmp_path / "own.sock") == [f"{path} False", "[]"]
    assert path.exists()
    assert not (tmp_path / "own.sock").exists()


def test_a_socket_passed_to_another_process_is_not_ours(tmp_path: Path) -> None:
    own = tmp_path / "own.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "systemd.sock"))
        listening.listen()
        assert _activate(listening.fileno(), own, pid="1") == [f"{own} False", "[]"]


def test_other_descriptors_than_a_listening_unix_socket_are_refused(tmp_path: Path) -> None:
    complaint = "refused: systemd passed another kind of socket"
    with socket.socket(socket.AF_UNIX) as not_listening:
        assert _activate(not_listening.fileno(), tmp_path)[0].startswith(complaint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        assert _activate(datagram.fileno(), tmp_path)[0].startswith(complaint)
    with socket.socket(socket.AF_INET) as inet:
        inet.bind(("127.0.0.1", 0))
        inet.listen()
        assert _activate(inet.fileno(), tmp_path)[0].startswith(complaint)
    with open(os.devnull) as file:
        assert _activate(file.fileno(), tmp_path)[0].startswith("refused: what systemd passed is")


def test_two_passed_sockets_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        said = _activate(sock.fileno(), tmp_path, count="2")
    assert said[0].startswith("refused: systemd passed 2 sockets, expected one")


def test_without_activation_nothing_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert passed_listener() is None
