"""Asking before anything large is fetched."""

import io

import pytest

from hga_chat.cli.fetching import asking
from hga_chat.models import Fetch
from hga_chat.output import Output

LARGE = Fetch("big", 5 << 30, 2 << 30, "https://hub/someone/big")
SMALL = Fetch("small", 5 << 30, 100_000_000, "https://hub/someone/small")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def confirm(monkeypatch):
    """Return a function that asks with an answer typed ahead, and gives what was shown as well."""

    def run(fetch, answer, stdin=Terminal, **options):
        shown = Terminal()
        monkeypatch.setattr("sys.stdin", stdin(answer))
        monkeypatch.setattr("sys.stderr", shown)
        return asking(Output(**options))(fetch), shown.getvalue()

    return run


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("\n", True), ("y\n", True), ("YES\n", True), ("n\n", False), ("", False)],
)
def test_a_person_is_asked_with_the_size_that_is_left(confirm, answer, expected):
    said, shown = confirm(LARGE, answer)
    assert said is expected
    assert "Fetch big (2.0 GiB) from https://hub/someone/big? [Y/n]" in shown


def test_what_is_small_is_fetched_without_asking(confirm):
    assert confirm(SMALL, "n\n") == (True, "")


def test_nobody_is_asked_without_a_terminal_or_when_quiet(confirm):
    assert confirm(LARGE, "n\n", stdin=io.StringIO) == (True, "")
    assert confirm(LARGE, "n\n", quiet=True) == (True, "")
