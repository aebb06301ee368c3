"""
A server behind walls: what it can read and write, whether it has a network, and whose rights it has.

Walls are bubblewrap's (namespaces of the Linux kernel): processes of its own that end with their first one, a file
system in which only the listed paths can be written, no capabilities. What cannot be had is an error when the sink
opens, found by trying: a server that was to be confined never runs without.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.options import ConfigPath, option
from sluiceway.pipeline.protocol.errors import ConnectFailed

from .process import Process, Shim

Lifetime = Literal["auto", "shim", "bubblewrap", "plain"]

_SYSTEM: Final = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/sbin", "/usr")
"""What any program needs to run; visible in every confinement, never writable."""
_PROBE_WITHIN_S: Final = 10.0


@final
@frozen
class ConfineConfig:
    """
    What a server is kept from.

    Nothing but `writable_paths` and a `/tmp` of its own can be written. A mere `user` needs no walls, and has none.
    """

    no_network: bool = option(False, doc="No network but a loopback interface of its own.", example=True)
    read_only_paths: tuple[ConfigPath, ...] | None = option(
        None, doc="What can be read besides the system's own directories; everything when absent.",
        example=["/opt/server"],
    )  # fmt: skip
    writable_paths: tuple[ConfigPath, ...] = option(
        (), doc="What can be read and written; must exist.", example=["./data"]
    )
    user: str | None = option(
        None, doc="Name of the user that the server runs as. Only a gateway that runs as root can do that.",
        example="nobody",
    )  # fmt: skip

    def user_ids(self) -> tuple[int, int] | None:
        """
        User and group id of `user`; None if it is absent.

        Raises:
            ConnectFailed: There is no such user, or we are not root.
        """
        if self.user is None:
            return None
        if os.geteuid() != 0:
            raise ConnectFailed(f"confine.user is {self.user!r}, but only root can change users; run as that user")
        try:
            entry = pwd.getpwnam(self.user)
        except KeyError:
            raise ConnectFailed(f"confine.user is {self.user!r}, but there is no such user") from None
        return entry.pw_uid, entry.pw_gid

    @property
    def needs_walls(self) -> bool:
        """Whether changing the user is not all that is asked for."""
        return self.no_network or self.read_only_paths is not None or bool(self.writable_paths) or self.user is None

    def arguments(self, program: str = "") -> list[str]:
        """
        Bubblewrap's arguments for the file system and the network.

        The server has a `/tmp` of its own. One that is itself installed below `/tmp` keeps, readable, the folder it is
        in, where everything else is readable too.
        """
        arguments: list[str] = []
        if self.read_only_paths is None:
            arguments += ["--ro-bind", "/", "/"]
        else:
            for folder in _SYSTEM:
                arguments += ["--ro-bind-try", folder, folder]
        arguments += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108  # the server's own
        parts = Path(program).parts
        if self.read_only_paths is None and parts[:2] == ("/", "tmp") and len(parts) > 3:  # not for files
            home = str(Path(*parts[:3]))
            arguments += ["--ro-bind", home, home]
        for path in self.read_only_paths or ():
            arguments += ["--ro-bind", str(path), str(path)]
        for path in self.writable_paths:
            arguments += ["--bind", str(path), str(path)]
        if self.no_network:
            arguments.append("--unshare-net")
        return arguments


@final
@frozen
class Walls:
    """The command line in front of a server's, and the shim before both."""

    prefix: tuple[str, ...]
    shim: Shim

    @classmethod
    def build(
        cls, lifetime: Lifetime, confine: ConfineConfig | None, limits: Mapping[str, int], server: str = ""
    ) -> Walls:
        """
        What a server is started with; `server` is the path of its program.

        Raises:
            ConnectFailed: It was asked for something that cannot be had here.
        """
        user = confine.user_ids() if confine is not None else None
        walled = confine is not None and confine.needs_walls
        if lifetime == "auto":
            lifetime = "bubblewrap" if walled else "shim"
        if walled and lifetime != "bubblewrap":
            raise ConnectFailed(f"confine needs lifetime bubblewrap or auto, not {lifetime}")
        shim = Shim(watch=lifetime != "plain", limits=limits, user=user)
        if lifetime != "bubblewrap":
            return cls((), shim)
        program = shutil.which("bwrap")
        if program is None:
            raise ConnectFailed("bubblewrap is needed, but bwrap was not found; install the package bubblewrap")
        inside = (
            confine.arguments(server) if confine is not None and walled else ["--dev-bind", "/", "/", "--proc", "/proc"]
        )
        drop = ["--cap-drop", "ALL"] if walled else []
        return cls((program, "--die-with-parent", "--unshare-pid", *drop, *inside, "--"), shim)

    async def check(self, cwd: Path | None, env: Mapping[str, str]) -> None:
        """
        Try them on a program that does nothing.

        Raises:
            ConnectFailed: They do not stand here; with bubblewrap's or the system's reason.
        """
        if not self.prefix and self.shim.user is None:
            return
        process = Process.spawn((*self.prefix, "/bin/true"), cwd=cwd, env=env, shim=self.shim)
        said = b""
        try:
            with trio.move_on_after(_PROBE_WITHIN_S):
                process.stdin.close()
                while piece := await process.stderr.receive_some():
                    said = (said + piece)[:1024]
                await process.wait_exited()
            status = process.status_text()
            if status != "exited with status 0":
                reason = process.start_error() or said.decode("utf-8", "replace").strip() or status
                raise ConnectFailed(f"the server cannot be confined as it should be: {reason}")
        finally:
            await process.kill_and_reap()  # noqa: ASYNC102  # shields itself, for seconds at most
