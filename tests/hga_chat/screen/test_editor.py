"""The user's editor. The spellings of a line are those of each editor's manual."""

import signal
from pathlib import Path

import pytest

from hga_chat.screen.editor import at_line, edit_text, editor

PATH = Path("/notes/a b.txt")


def test_visual_goes_before_editor_and_may_have_arguments():
    assert editor({"VISUAL": "code --wait", "EDITOR": "vi"}) == ["code", "--wait"]
    assert editor({"VISUAL": "", "EDITOR": "emacsclient -nw"}) == ["emacsclient", "-nw"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["vim"], ["+12", str(PATH)]),
        (["/usr/bin/nano"], ["+12", str(PATH)]),
        (["emacs", "-nw"], ["+12", str(PATH)]),
        (["code"], ["--goto", f"{PATH}:12"]),
        (["hx"], [f"{PATH}:12"]),
        (["subl"], [f"{PATH}:12"]),
        (["unheard-of"], [str(PATH)]),
    ],
)
def test_each_editor_is_told_the_line_in_its_own_way(command, arguments):
    assert at_line(command, PATH, 12) == [*command, *arguments]
    assert at_line(command, PATH, None) == [*command, str(PATH)]


def test_a_text_comes_back_as_edited(tmp_path):
    script = tmp_path / "append"
    script.write_text('#!/bin/sh\nprintf "second\\n" >> "$1"\n')
    script.chmod(0o755)
    assert edit_text([str(script)], "first\n") == "first\nsecond"


def test_a_failing_editor_is_an_error():
    with pytest.raises(OSError, match="exit code 1"):
        edit_text(["false"], "first")
    with pytest.raises(OSError, match="no-such-editor"):
        edit_text(["no-such-editor"], "first")


@pytest.mark.skipif(not hasattr(signal, "SIGCONT"), reason="needs job control")
def test_what_wakes_the_editor_does_not_wake_the_screen(tmp_path):
    script = tmp_path / "waking"
    script.write_text("#!/bin/sh\nkill -CONT $PPID\n")
    script.chmod(0o755)
    woken = []
    before = signal.signal(signal.SIGCONT, lambda *_: woken.append(True))
    try:
        edit_text([str(script)], "first")
        assert not woken
        signal.raise_signal(signal.SIGCONT)
        assert woken
    finally:
        signal.signal(signal.SIGCONT, before)
