"""The command line as a whole: startup, help, settings, streams, interrupts."""

import os
import signal
import subprocess
import sys

import pytest

from hga_chat import __version__
from hga_chat.screen.run import Ended

COMMAND = [sys.executable, "-m", "hga_chat"]


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_version():
    ran = run("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"hga-chat {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["ask", "--help"], ["models", "--help"], ["bench", "-h"], []],
)
def test_help_is_plain_text(arguments):
    ran = run(*arguments)
    assert ran.returncode == 0
    assert ran.stdout.startswith("Usage: hga-chat")
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument):
    ran = run(argument, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.stderr.splitlines()}
    assert "typer" in imported
    heavy = {"torch", "transformers", "rich", "textual", "numpy", "pypdf", "pathspec"}
    assert not imported & heavy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["assk"], "No such command 'assk'"),
        (["models"], "Missing command"),
        (["ask"], "Missing argument"),
        (["ask", "only-one"], "Missing argument"),
        (["ask", "x", "q", "--colour"], "No such option: --colour"),
        (["ask", "x", "q", "--budget", "many"], "'--budget'"),
        (["ask", "x", "q", "--router", "best"], "--router must be hga, paper or dense"),
        (["ask", "x", "q", "--budget", "0"], "budget must be at least 64 tokens"),
        (["ask", "x", "q", "--host-budget", "lots"], "--host-budget must be a size such as"),
        (["ingest", "x", "--json"], "--json needs --dry-run"),
        (["bench", "speed", "--context", "4k"], "numbers such as"),
    ],
)
def test_a_usage_error_is_two_lines_and_exit_code_2(cli, arguments, message):
    ran = cli(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err
    assert ran.err.count("\n") <= 2


def test_unknown_settings_are_errors(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HGA_CHAT_BUGDET", "3")
    ran = cli("ask", "x", "q")
    assert (ran.code, ran.out) == (2, "")
    assert "HGA_CHAT_BUGDET is not a setting" in ran.err


def test_the_chat_without_a_terminal_points_to_ask(cli, tmp_path):
    for command in (["ingest", tmp_path], ["chat"]):
        ran = cli(*command)
        assert ran.code == 2
        assert "needs a terminal" in ran.err
        assert "hga-chat ask" in ran.err


def test_the_chat_opens_on_a_terminal_before_the_model_is_loaded(
    cli, use_engine, monkeypatch, tmp_path
):
    import hga_chat.screen.run

    def run_screen(make_conversation, sampling, theme, plain, alerts, first_message, consider):
        loaded = []
        conversation = make_conversation(lambda what, share: loaded.append(share))
        opened.append((conversation.layout, sampling.max_new_tokens, loaded))
        kept = [] if conversation.is_prefilled else conversation.keep_part()
        conversation.close()
        return Ended(kept)

    opened = []
    use_engine()
    monkeypatch.setattr(hga_chat.screen.run, "run_screen", run_screen)
    for stream in ("stdin", "stdout", "__stderr__"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    (tmp_path / "notes.txt").write_text("Some text.\n")
    left = cli("ingest", tmp_path, "--max-new-tokens", "9")
    assert (left.code, left.err) == (
        130,
        "Quit before reading finished; nothing was saved.\n",
    )
    assert cli("chat").code == 0
    (layout, new_tokens, loaded), (no_layout, *_) = opened
    assert [span.document.path for span in layout.documents] == ["notes.txt"]
    assert (new_tokens, loaded, no_layout) == (9, [1.0], None)


def test_traceback_only_with_debug(cli, monkeypatch, tmp_path):
    def fail(*_):
        raise KeyError("lost")

    monkeypatch.setattr("hga_chat.documents.iter_documents", fail)
    ran = cli("ask", tmp_path, "q")
    assert ran.code == 1
    assert "Unexpected KeyError" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in cli("--debug", "ask", tmp_path, "q").err


def test_keyboard_interrupt_is_130_without_a_traceback(cli, monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hga_chat.documents.iter_documents", interrupt)
    ran = cli("ask", tmp_path, "q")
    assert (ran.code, ran.out, ran.err) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_does_not_fail_the_command(cli, monkeypatch, closed):
    monkeypatch.setattr(sys, closed, None)
    assert cli("--version").code == 0
    assert cli("sessions", "show", "lost").code == 1
    # The command leaves it open until the process ends, which it does not here.
    getattr(sys, closed).close()


def test_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [*COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert ran.stderr == ""
    assert ran.returncode == 1


def test_first_interrupt_cancels_and_the_second_ends_at_once():
    code = (
        "import signal\n"
        "from hga_chat.cli.ask import cancel_on_interrupt\n"
        "with cancel_on_interrupt() as cancel:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print(cancel.is_set(), flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('still here')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "True\n"
    assert ran.returncode == -signal.SIGINT
