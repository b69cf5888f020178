import base64

import pytest

from hga_chat.screen import clipboard


def decoded(sequence):
    return base64.b64decode(sequence.split(";c;")[1].split("\x07")[0]).decode()


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Puts programs on the path that write what they are given into a file."""

    def install(*names, status=0):
        for name in names:
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\n/bin/cat > {tmp_path}/{name}.got\nexit {status}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path

    return install


def test_copying_through_the_terminal_claims_no_success(programs):
    programs()
    written = []
    said = clipboard.copy("sea ü", written.append, {})
    assert decoded(written[0]) == "sea ü"
    assert said == "Sent 5 characters to the terminal's clipboard; not every terminal takes it."


def test_within_tmux_the_sequence_is_sent_bare_and_wrapped():
    sequence = clipboard.osc52("sea", {"TMUX": "/tmp/x,1,0"})
    bare, wrapped = sequence.split("\x1bPtmux;")
    assert decoded(bare) == "sea"
    assert wrapped.startswith("\x1b\x1b]52;c;")
    assert wrapped.endswith("\x07\x1b\\")


def test_a_program_that_took_the_text_is_named(programs):
    folder = programs("xclip")
    said = clipboard.copy("sea", lambda _: None, {"DISPLAY": ":0"})
    assert said == "Copied 3 characters with xclip."
    assert (folder / "xclip.got").read_text() == "sea"


def test_a_failed_program_is_not_reported_as_success(programs):
    programs("xclip", status=1)
    said = clipboard.copy("sea", lambda _: None, {"DISPLAY": ":0"})
    assert said.startswith("Sent 3 characters")


def test_over_ssh_no_local_program_is_used(programs):
    folder = programs("xclip")
    said = clipboard.copy("sea", lambda _: None, {"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"})
    assert said.startswith("Sent 3 characters")
    assert not (folder / "xclip.got").exists()


def test_a_text_that_is_too_long_is_not_sent(programs):
    programs()
    written = []
    said = clipboard.copy("x" * 80_000, written.append, {})
    assert written == []
    assert "80,000 characters are too many" in said
