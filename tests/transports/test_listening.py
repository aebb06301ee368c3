"""Listening sockets on real files: who may connect, what is taken over, and what is left where it is."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from sluiceway.transports.listening import Listening, check_binds


@pytest.mark.parametrize(("access", "mode"), [("owner", 0o600), ("group", 0o660), ("all", 0o666)])
def test_a_unix_socket_is_for_whom_socket_access_says(tmp_path: Path, access: Any, mode: int) -> None:
    """Whatever the umask is; the gateway's own user unless said otherwise."""
    path = tmp_path / "s"
    before = os.umask(0)
    try:
        listening = Listening([f"unix:{path}"], 1.0, *([] if access == "owner" else [access]))
        listening.bind()
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == mode
    listening.close()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_where_it_is(tmp_path: Path) -> None:
    """A slip of the pen in the configuration must not cost anybody a file."""
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    listening = Listening([f"unix:{path}"], 1.0)
    with pytest.raises(OSError, match=r"cannot listen on unix:.*notes\.txt: Address already in use"):
        listening.bind()

    assert path.read_text() == "precious"


def test_a_dead_socket_is_taken_over(tmp_path: Path) -> None:
    """A process that was killed leaves one."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening = Listening([f"unix:{path}"], 1.0)
    listening.bind()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listening.close()

    assert not path.exists()


def test_what_somebody_else_has_put_in_its_place_stays(tmp_path: Path) -> None:
    """Closing removes our own socket only."""
    path = tmp_path / "s"
    listening = Listening([f"unix:{path}"], 1.0)
    listening.bind()
    path.rename(tmp_path / "ours")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listening.close()

        assert path.exists()


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    """The kernel takes about a hundred bytes."""
    listening = Listening([f"unix:{tmp_path}/{'x' * 120}"], 1.0)
    with pytest.raises(OSError, match=r"cannot listen on unix:.*too long"):
        listening.bind()


def test_what_was_opened_is_closed_when_something_else_is_taken(tmp_path: Path) -> None:
    """All or nothing."""
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listening = Listening([f"unix:{path}", f"127.0.0.1:{taken.getsockname()[1]}"], 1.0)
        with pytest.raises(OSError, match="Address already in use"):
            listening.bind()

    assert not path.exists()
    assert listening.addresses == ()
    assert listening.listeners() == []


def test_addresses_are_checked_without_opening_any() -> None:
    """So that `check` can."""
    check_binds(["127.0.0.1:0", "[::1]:8080", "unix:./s"])
    with pytest.raises(ValueError, match="name at least one address"):
        check_binds([])
