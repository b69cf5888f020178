"""Completion in the shell, as the script that ``--show-completion`` prints asks for it."""

import os
import subprocess
import sys

import pytest

from hga_chat.sessions.store import SessionStore


def completed(line):
    """Return what bash is offered for the last word of a line."""
    words = line.split(" ")
    variables = {
        "_HGA_CHAT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; sys.argv = ['hga-chat']\nfrom hga_chat.__main__ import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(cli, shell):
    ran = cli("--show-completion", shell)
    assert ran.code == 0
    assert "_HGA_CHAT_COMPLETE" in ran.out


def test_commands_and_models_are_completed():
    assert completed("hga-chat ses") == ["sessions"]
    assert completed("hga-chat sessions ex") == ["export"]
    assert completed("hga-chat ask --model qwen2.5-coder-0") == ["qwen2.5-coder-0.5b"]


def test_sessions_are_completed_by_id_and_title(cli, use_engine, tmp_path):
    use_engine()
    path = tmp_path / "sea.txt"
    path.write_text("The sea is calm.\n")
    cli("ingest", "--no-chat", path)
    (id_,) = SessionStore(1 << 30).ids()
    assert completed("hga-chat chat ") == [id_]
    assert completed(f"hga-chat sessions show {id_[:2]}") == [id_]
    assert completed("hga-chat ask --session se") == ["sea.txt"]
    assert completed("hga-chat sessions rm xyz") == []
