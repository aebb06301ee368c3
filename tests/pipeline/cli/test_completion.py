"""Scripts for shells."""

import shutil
import subprocess

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_knows_the_verbs(sluiceway, shell):
    """On stdout, to be sourced."""
    outcome = sluiceway("completion", shell)

    assert outcome.code == 0
    assert all(verb in outcome.out for verb in ("check", "explain", "deny-warnings"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_accepts_its_script(sluiceway):
    """It is at least a program."""
    script = sluiceway("completion", "bash").out
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_a_usage_error(sluiceway):
    """The choices are named."""
    outcome = sluiceway("completion", "tcsh")

    assert outcome.code == 2
    assert "fish" in outcome.err


def test_completion_can_be_installed(program, tmp_path):
    """Into the home directory of whoever asks."""
    outcome = program("--install-completion", "--shell", "bash", env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})

    assert outcome.code == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file() and "sluiceway" in p.read_text()]
