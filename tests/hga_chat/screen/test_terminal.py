"""The screen in a real terminal, and the state in which it leaves the terminal."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

PATIENCE_S = 30.0
ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {kernels!r}]
from tests.support.scripted import ScriptedAnswer
from tests.support.scripted_conversation import ScriptedConversation
from hga_chat.screen import run
from hga_engine.config import SamplingParams

text = "The sea is **calm** today. " + "and calm " * 400
script = ScriptedConversation([ScriptedAnswer(text, {{3: 1.0}}, hold_after=40)])
{extra}
run.run_screen(script.make, SamplingParams(max_new_tokens=2000))
print("closed:", script.engine.closed)
"""
CRASH = """
def crash(self, report):
    raise RuntimeError("the screen broke")
from hga_chat.screen.flow import Flow
Flow._stream = crash
"""
ENGINE_CRASH = """
def crash(self, conversation):
    raise RuntimeError("the engine broke")
from hga_chat.screen.engine.thread import EngineThread
EngineThread._open = crash
"""
ANSWER_CRASH = """
script.engine._answers.insert(0, ScriptedAnswer("", error=RuntimeError("the answer broke")))
"""
IN_PARTS = """
from dataclasses import replace
from pathlib import Path
from hga_chat.sessions.store import SessionStore
from tests.support.scripted_conversation import keep

engine, make = script.engine, script.make
engine.config = replace(engine.config, part_tokens=256)
prefill = engine.prefill

def held_in_the_second_part(token_ids, cancel):
    if engine.num_tokens:
        engine._hold_prefill_after = 1
        Path("second part").touch()
    return prefill(token_ids, cancel)

engine.prefill = held_in_the_second_part
store = SessionStore(1 << 30, Path("sessions"), Path("kv"))
script.make = lambda progress: keep(make(progress), store)
"""

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A tmux session on a server of its own."""

    def __init__(self, directory):
        self._socket = f"hga-{uuid.uuid4().hex[:12]}"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "-c", directory)
        self._tmux("set", "-g", "set-clipboard", "on")

    def _tmux(self, *arguments):
        done = subprocess.run(
            ["tmux", "-L", self._socket, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def run(self, program):
        self.send(f"PS1='$ '; clear; {sys.executable} {program}; echo \"left with $?\"", "Enter")

    def send(self, *keys):
        self._tmux("send-keys", *keys)

    def shows(self):
        return self._tmux("capture-pane", "-p")

    def wait(self, *texts, without=()):
        """Until it shows all of these and none ``without``."""
        end = time.monotonic() + PATIENCE_S
        while True:
            shown = self.shows()
            if all(text in shown for text in texts) and not any(text in shown for text in without):
                return shown
            assert time.monotonic() < end, f"never {texts} without {without}:\n{shown}"
            time.sleep(0.05)

    def is_clean(self):
        """Whether the usual screen is back, with a cursor and without mouse reports."""
        modes = "#{alternate_on} #{mouse_any_flag} #{cursor_flag}"
        return self._tmux("display-message", "-p", modes).split() == ["0", "0", "1"]

    def resize(self, width, height):
        self._tmux("resize-window", "-x", width, "-y", height)

    def buffer(self):
        """What tmux took for the clipboard."""
        return self._tmux("show-buffer")

    def process(self):
        """The process that runs in the foreground of the shell."""
        shell = self._tmux("display-message", "-p", "#{pane_pid}").strip()
        return subprocess.run(
            ["ps", "-o", "pid=", "--ppid", shell], capture_output=True, text=True, check=True
        ).stdout.strip()

    def close(self):
        subprocess.run(
            ["tmux", "-L", self._socket, "kill-server"],
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


@pytest.fixture
def program(tmp_path):
    def write(extra=""):
        path = tmp_path / "program.py"
        path.write_text(
            PROGRAM.format(
                root=str(ROOT),
                kernels=str(ROOT / "kernels"),
                extra=extra,
            )
        )
        return path

    return write


def test_question_cancel_and_quit(terminal, program):
    terminal.run(program())
    terminal.wait("ready", "sea.txt", "host K/V")
    terminal.send("How is it?", "Enter")
    screen = terminal.wait("The sea is calm today.", "answering")
    assert "How is it?" in screen
    terminal.send("typed meanwhile")
    terminal.wait("typed meanwhile")
    terminal.send("Escape")
    terminal.wait("stopped after", "ready", "logs/sea.txt:")
    terminal.send("C-q")
    terminal.wait("closed: True", "left with 0")
    assert terminal.is_clean()


def test_terminal_is_clean_when_the_process_is_told_to_end(terminal, program):
    terminal.run(program())
    terminal.wait("ready")
    assert not terminal.is_clean()
    subprocess.run(["kill", "-TERM", terminal.process()], check=True)
    terminal.wait("closed: True", "left with")
    assert terminal.is_clean()


def test_an_answering_process_ends_with_its_terminal(terminal, program):
    terminal.run(program())
    terminal.wait("ready")
    terminal.send("How is it?", "Enter")
    terminal.wait("answering")
    process = int(terminal.process())
    terminal.close()
    try:
        end = time.monotonic() + PATIENCE_S
        while is_running(process):
            assert time.monotonic() < end, "the process outlives its terminal"
            time.sleep(0.05)
    finally:
        if is_running(process):
            os.kill(process, signal.SIGKILL)


def is_running(process):
    return subprocess.run(["ps", "-p", str(process)], capture_output=True).returncode == 0


def test_terminal_is_clean_after_a_crash(terminal, program):
    terminal.run(program(CRASH))
    terminal.wait("ready")
    terminal.send("How is it?", "Enter")
    terminal.wait("the screen broke", "left with 1")
    assert terminal.is_clean()


def test_ctrl_c_twice_quits(terminal, program):
    terminal.run(program())
    terminal.wait("ready")
    terminal.send("C-c")
    terminal.wait("Ctrl+C again quits")
    terminal.send("C-c")
    terminal.wait("closed: True", "left with 0")
    assert terminal.is_clean()


def test_ctrl_c_stops_the_answer_and_twice_quits(terminal, program):
    terminal.run(program())
    terminal.wait("ready")
    terminal.send("How is it?", "Enter")
    terminal.wait("The sea is calm", "answering")
    terminal.send("C-c")
    terminal.wait("stopped after", "ready")
    terminal.send("C-c", "C-c")
    terminal.wait("closed: True", "left with 0")
    assert terminal.is_clean()


def test_screen_is_not_drawn_into_a_file_or_pipe(terminal, program):
    python = f"PYTHONPATH={ROOT}:{ROOT}/kernels {sys.executable} -m hga_chat"
    terminal.send(f"{python} chat 2>errors; echo left with $?; cat errors", "Enter")
    terminal.wait("left with 2", "needs a terminal", "hga-chat ask")
    assert terminal.is_clean()


def test_screen_follows_a_terminal_that_changes_its_size(terminal, program):
    terminal.run(program())
    terminal.wait("ready", "host K/V")
    terminal.send("How is it?", "Enter")
    terminal.wait("The sea is calm")
    terminal.resize(80, 24)
    terminal.wait("process", "The sea is calm", without=["host K/V"])
    terminal.resize(120, 40)
    terminal.wait("host K/V", "The sea is calm")


def test_nothing_is_left_on_a_terminal_that_has_grown(terminal, program):
    terminal.run(program())
    terminal.wait("ready", "sea.txt")
    terminal.resize(160, 60)
    end = time.monotonic() + PATIENCE_S
    while len(max(terminal.shows().split("\n"), key=len)) < 160:
        assert time.monotonic() < end, "the screen has not grown"
        time.sleep(0.05)
    terminal.send("C-q")
    terminal.wait("closed: True", "left with 0")
    assert "sea.txt" not in terminal.shows()


def test_answer_reaches_the_clipboard_as_it_was_written(terminal, program):
    terminal.run(program())
    terminal.wait("ready")
    terminal.send("How is it?", "Enter")
    terminal.wait("The sea is calm")
    terminal.send("Escape")
    terminal.wait("stopped after", "ready")
    terminal.send("F8")
    terminal.wait("characters")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            found = terminal.buffer()
        except subprocess.CalledProcessError:
            time.sleep(0.05)
            continue
        break
    assert found.startswith("The sea is **calm** today. and calm")


def test_terminal_is_clean_after_a_crash_of_the_engine(terminal, program):
    terminal.run(program(ENGINE_CRASH))
    terminal.wait("the engine broke", "No questions can be asked", "failed")
    terminal.send("C-q")
    terminal.wait("the engine broke", "left with 1")
    assert terminal.is_clean()


def test_after_a_crash_in_an_answer_the_next_question_is_answered(terminal, program):
    terminal.run(program(ANSWER_CRASH))
    terminal.wait("ready")
    terminal.send("How is it?", "Enter")
    terminal.wait("the answer broke", "ready")
    terminal.send("And now?", "Enter")
    terminal.wait("The sea is calm", "answering")
    terminal.send("C-q")
    terminal.wait("closed: True", "left with 0")
    assert terminal.is_clean()


def test_an_idle_process_ends_with_its_terminal(terminal, program):
    terminal.run(program())
    terminal.wait("ready")
    process = terminal.process()
    terminal.close()
    end = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < end, "still there"
        time.sleep(0.05)


def test_ctrl_z_suspends_and_fg_comes_back(terminal, program):
    terminal.run(program())
    terminal.wait("Ask about")
    terminal.send("C-z")
    terminal.wait("$", without=["Ask about"])
    assert terminal.is_clean()
    terminal.send("fg", "Enter")
    terminal.wait("Ask about")
    terminal.send("C-q")
    terminal.wait("closed: True")


def test_the_editor_has_the_terminal_and_gives_it_back(terminal, program, tmp_path):
    editor = tmp_path / "edit"
    editor.write_text('#!/bin/sh\necho "EDITING $1"; read line; echo "$line" > "$1"\n')
    editor.chmod(0o755)
    terminal.send(f"export VISUAL={editor}", "Enter")
    terminal.run(program())
    terminal.wait("Ask about")
    terminal.send("C-g")
    terminal.wait("EDITING")
    terminal.send("is the sea calm", "Enter")
    terminal.wait("is the sea calm", "Documents", without=["EDITING"])
    terminal.send("C-q")
    terminal.wait("left with 0")


def wait_for(path):
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)


def kept_tokens(folder):
    """How many tokens the saved session holds whose prefill was left."""
    (state,) = folder.glob("kv/*/state.json")
    return len(json.loads(state.read_text())["tokens"])


@pytest.mark.parametrize("leave", ["quit", "told to end", "interrupted"])
def test_leaving_a_long_read_keeps_what_is_read(terminal, program, tmp_path, leave):
    terminal.run(program(IN_PARTS))
    wait_for(tmp_path / "second part")
    if leave == "told to end":
        subprocess.run(["kill", "-TERM", terminal.process()], check=True)
    else:
        terminal.send(*(["C-q"] if leave == "quit" else ["C-c", "C-c"]))
    terminal.wait("closed: True", "left with 0")
    assert kept_tokens(tmp_path) == 256


def test_a_long_read_is_kept_when_the_terminal_is_closed(terminal, program, tmp_path):
    terminal.run(program(IN_PARTS))
    wait_for(tmp_path / "second part")
    process = int(terminal.process())
    terminal.close()
    end = time.monotonic() + PATIENCE_S
    while is_running(process):
        assert time.monotonic() < end, "the process outlives its terminal"
        time.sleep(0.05)
    assert kept_tokens(tmp_path) == 256


COMMAND = """
import os, sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = [{root!r}, {kernels!r}]
for kind in ("CONFIG", "DATA", "CACHE"):
    os.environ[f"XDG_{{kind}}_HOME"] = os.path.abspath(kind)
from hga_chat import engine_access
from hga_chat.__main__ import main
from tests.support.scripted import ScriptedAccess, ScriptedEngine

engine = ScriptedEngine(["Calm."])
opened, prefill = engine.open, engine.prefill

def open_in_parts(config):
    opened(config)
    engine.config = replace(engine.config, part_tokens=256)
    return engine

def held_in_the_second_part(token_ids, cancel):
    if engine.num_tokens:
        engine._hold_prefill_after = 1
        Path("second part").touch()
    return prefill(token_ids, cancel)

engine.open, engine.prefill = open_in_parts, held_in_the_second_part
engine_access.access = ScriptedAccess(engine)
Path("log.txt").write_text("".join(f"line {{n}} is calm.\\n" for n in range(200)))
main({arguments!r})
"""


@pytest.mark.parametrize("arguments", [["ingest", "--no-chat", "log.txt"], ["ask", "log.txt", "?"]])
def test_a_command_keeps_what_is_read_when_its_terminal_is_closed(terminal, tmp_path, arguments):
    path = tmp_path / "command.py"
    source = COMMAND.format(root=str(ROOT), kernels=str(ROOT / "kernels"), arguments=arguments)
    path.write_text(source)
    terminal.run(path)
    wait_for(tmp_path / "second part")
    process = int(terminal.process())
    terminal.close()
    end = time.monotonic() + PATIENCE_S
    while is_running(process):
        assert time.monotonic() < end, "the process outlives its terminal"
        time.sleep(0.05)
    assert kept_tokens(tmp_path / "CACHE" / "hga-chat") == 256
