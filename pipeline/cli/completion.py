"""`sluiceway completion`: the script that a shell's start-up file sources."""

from __future__ import annotations

from typing import Literal

from .output import emit


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """
    Print the completion script of a shell.

    `source <(sluiceway completion bash)` tries it; `sluiceway --install-completion` keeps it.

    Args:
        shell: The shell the script is for.
    """
    from .app import build_app

    emit(build_app().generate_completion(shell=shell))
