from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.plain.markdown import load_markdown

GUIDE = """\
---
title: "# not a heading"
---
Before the first heading.

# Guide

Intro.

```sh
# a comment in a fence
```

## Install ##

- item

  # in a list

> # in a quote

Underlined
==========

### Deep `code`

    # indented code

Two
lines
---
end
"""


def test_sections_follow_the_headings() -> None:
    sections = load_markdown("guide.md", GUIDE.encode()).sections
    assert [(s.label, s.start_line, s.end_line) for s in sections] == [
        ("lines 1-5", 1, 5),
        ("Guide", 6, 13),
        ("Guide > Install", 14, 21),
        ("Underlined", 22, 24),
        ("Underlined > Deep `code`", 25, 28),
        ("Underlined > Two lines", 29, 32),
    ]
    assert sections[3].text == "Underlined\n==========\n\n"


def test_an_unclosed_fence_hides_headings_to_the_end() -> None:
    sections = load_markdown("a.md", b"# A\n~~~\n# B\n").sections
    assert [s.label for s in sections] == ["A"]


def test_long_sections_are_cut_and_keep_their_label() -> None:
    sections = load_markdown("a.md", b"# A\n" + b"- x\n" * 300).sections
    assert [(s.label, s.start_line, s.end_line) for s in sections] == [
        ("A", 1, 200),
        ("A", 201, 301),
    ]


_line = st.sampled_from(["# A", "## B ##", "text", "", "```", "~~~~", "---", "===", "- x", "> q"])


@given(st.lists(_line, max_size=40))
def test_sections_tile_the_file(lines: list[str]) -> None:
    text = "\n".join(lines)
    sections = load_markdown("a.md", text.encode()).sections
    assert "".join(section.text for section in sections) == text
    starts = [section.start_line for section in sections]
    assert starts == sorted(set(starts))
