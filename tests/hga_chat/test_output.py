import io

import pytest

from hga_chat.output import Output, human_bytes, human_share, table


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal()


def test_progress_is_overwritten_and_erased(terminal):
    output = Output(stdout=io.StringIO(), stderr=terminal)
    output.progress("Reading 100 tokens", 0.5)
    output.progress("Short", 1.0)
    output.note("Done.")
    first, second, blank, note = terminal.getvalue().split("\r")[1:]
    assert first == "Reading 100 tokens  50%"
    assert second == "Short 100%".ljust(len(first))
    assert blank.strip() == ""
    assert note == "Done.\n"


def test_progress_never_wraps(terminal):
    Output(stdout=io.StringIO(), stderr=terminal).progress("x" * 100, 0.5)
    assert len(terminal.getvalue().strip("\r")) < 40


@pytest.mark.parametrize("why", ["pipe", "dumb", "quiet"])
def test_progress_is_shown_on_terminals_only(terminal, monkeypatch, why):
    monkeypatch.setenv("TERM", "dumb" if why == "dumb" else "xterm")
    stderr = io.StringIO() if why == "pipe" else terminal
    Output(quiet=why == "quiet", stdout=io.StringIO(), stderr=stderr).progress("Reading", 0.5)
    assert stderr.getvalue() == ""


def test_terminals_get_no_control_characters_and_pipes_every_character():
    for stdout, expected in ((Terminal(), "\u241b[31mred"), (io.StringIO(), "\x1b[31mred")):
        Output(stdout=stdout, stderr=io.StringIO()).write("\x1b[31mred")
        assert stdout.getvalue() == expected


def test_notes_never_carry_control_characters():
    stderr = io.StringIO()
    Output(stdout=io.StringIO(), stderr=stderr).note("file\x1b[2J.txt")
    assert stderr.getvalue() == "file\u241b[2J.txt\n"


def test_json_keeps_characters_beyond_ascii():
    stdout = io.StringIO()
    Output(stdout=stdout, stderr=io.StringIO()).json({"answer": "Grüße"})
    assert stdout.getvalue() == '{\n  "answer": "Grüße"\n}\n'


def test_table_aligns_numbers_to_the_right():
    assert table(("n", "name"), [(5, "a"), (12, "bb")]) == " n  name\n 5  a\n12  bb"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (98_362_432, "93.8 MiB"), (2**31, "2.0 GiB")],
)
def test_bytes_as_text(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "of", "text"),
    [
        (100 * 2**20, 8 * 2**30, "0.10 / 8.00 GiB"),
        (2**19, 625 * 2**20, "0.5 / 625.0 MiB"),
        (1, 3, "1.0 / 3.0 B"),
    ],
)
def test_bytes_and_their_total_share_a_unit(count, of, text):
    assert human_share(count, of) == text
