"""What a terminal shows, as ``col -b``, ``less -R`` and xterm have it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.plain.terminal import as_shown
from hga_chat.documents.plain.text import load_text


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        # Progress: the last step stays.
        ("\r  1%|#    | 1/100\r 50%|##   | 50/100\r100%|#####| 100/100", "100%|#####| 100/100"),
        ("Reading package lists... 0%\rReading package lists... Done", None),
        (
            "remote: Counting objects:  50% (1/2)   \rremote: Counting objects: 100% (2/2), done.",
            None,
        ),
        ("epoch 1 loss 0.51\repoch 2 loss 0.40\repoch 3 loss 0.31", None),
        ("- working\r\\ working\r| working\r/ working", None),
        ("   Building [==>   ] 3/9: serde\r   Building [=====>] 9/9: libc ", None),
        ("████░░░░ 50%\r████████ 100%", None),
        ("Downloading 99.1 MB\rDownloading 1 GB done \r", "Downloading 1 GB done "),
        ("working...\r          \rdone", "done      "),
        ("working...\r\x1b[Kdone", "done"),
        ("\x1b[2K\rstep 1/2\x1b[2K\rstep 2/2", "step 2/2"),
        # What is no progress is kept.
        ("name\rvalue", "name value"),
        ("a sentence\r  ", "a sentence"),
        ("a sentence\r\r", "a sentence"),
        ("a long first part\rshort", "a long first part short"),
        # Backspaces: bold, underlined, a sign that turns.
        ("N\bNA\bAM\bME\bE", "NAME"),
        ("_\bf_\bi_\bl_\be, f\b_", "file, f"),
        ("wait -\b\\\b|\b/\bok", "wait ok"),
        ("typo\b\b\bext", "text"),
        ("\b\bstart", "start"),
        # Colours, links, titles and other sequences.
        ("\x1b[1;31mERROR\x1b[0m disk \x1b[38;2;1;2;3mfull\x1b[m", "ERROR disk full"),
        ("\x1b]8;;https://example.org\x1b\\the link\x1b]8;;\x1b\\", "the link"),
        ("\x1b]0;a title\x07$ ls\x1b(B\x1b[m", "$ ls"),
        ("\x1b[?25l\x1b[2Kbuilding\x1b[?25h\x1b[1A", "building"),
        ("ab\x1b[3Cc\x1b[1Gx", "xb   c"),
        ("old text\x1b[8Dnew\x1b[K", "new"),
        # An escape that begins nothing stays.
        ("end \x1b", "end \x1b"),
    ],
)
def test_a_line(sent: str, shown: str | None) -> None:
    text, _ = as_shown(sent)
    assert text == (sent.split("\r")[-1] if shown is None else shown)


def test_plain_text_stays_as_it_is() -> None:
    text = "a\tb\x0cc\n\u2028d\x85\n"
    assert as_shown(text) == (text, {})


def test_lines_are_those_of_grep_and_what_is_left_out_is_counted() -> None:
    # mozilla/treeherder#9549
    steps = "".join(f"\r  Downloading {share:3}%" for share in range(0, 101, 2))
    log = f"Collecting torch\n{steps}\n\x1b[32mInstalling\x1b[0m\nERROR: disk full at /dev/sda1\n"
    loaded = load_text("build.log", log.encode())
    (section,) = loaded.sections
    assert (section.start_line, section.end_line) == (1, 4)
    assert section.text == (
        "Collecting torch\n  Downloading 100%\nInstalling\nERROR: disk full at /dev/sda1\n"
    )
    assert section.line_at(section.text.index("ERROR")) == 4
    assert loaded.left_out == ("progress steps (50)", "terminal codes (2)")


@pytest.mark.parametrize(
    "line",
    [
        "a" * 200_000 + "\ra" * 200_000,
        "\r 10%" * 200_000,
        "a" * 200_000 + "\x1b[1K" * 60_000,
        "\x1b[1000Ca" * 60_000,
        "ab\b" * 200_000,
        "\x1b]0;" * 200_000,
        "\x1b[" + "1" * 200_000,
    ],
    ids=range(7),
)
def test_hostile_lines_take_no_longer_than_others(line: str) -> None:
    started = time.process_time()
    text, _ = as_shown(line)
    assert time.process_time() - started < 10
    assert len(text) <= len(line) + 3_000


@given(st.text(st.sampled_from("ab 1%/\b\r\x1b[]0;mKCDG\x07\\"), max_size=60))
def test_any_line(line: str) -> None:
    text, _ = as_shown(line)
    assert "\n" not in text
    assert "\r" not in text
    assert "\b" not in text
    # Every letter that is shown was sent.
    assert not set(text) - set(line) - {" "}
