from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.plain.sections import MAX_SECTION_LINES, split_lines
from hga_chat.documents.plain.text import load_text


def test_a_short_file_is_one_section() -> None:
    (section,) = load_text("a.py", b"import os\n\nprint(os.name)\n").sections
    assert (section.path, section.label) == ("a.py", "lines 1-3")
    assert (section.start_line, section.end_line, section.page) == (1, 3, None)
    assert section.text == "import os\n\nprint(os.name)\n"


def test_a_last_line_without_a_newline() -> None:
    (section,) = load_text("a", b"alone").sections
    assert (section.label, section.start_line, section.end_line) == ("line 1", 1, 1)


def test_long_files_are_cut_between_blocks() -> None:
    block = "def f():\n" + "    x\n" * 58 + "\n"  # 60 lines
    sections = load_text("a.py", (block * 5).encode()).sections
    assert [(s.start_line, s.end_line) for s in sections] == [(1, 180), (181, 300)]


def test_long_files_without_a_gap_are_cut_at_the_limit() -> None:
    sections = load_text("a", b"x\n" * 450).sections
    assert [(s.start_line, s.end_line) for s in sections] == [(1, 200), (201, 400), (401, 450)]


def test_only_newlines_end_lines() -> None:
    assert split_lines("a\x0cb\u2028c\x85d\ne") == ["a\x0cb\u2028c\x85d\n", "e"]


_lines = st.lists(st.sampled_from(["", " ", "x", "  y", "word " * 900]), max_size=700)


@given(_lines, st.booleans())
def test_sections_tile_the_file(lines: list[str], final_newline: bool) -> None:
    text = "\n".join(lines) + "\n" * final_newline
    sections = load_text("a", text.encode()).sections
    assert "".join(section.text for section in sections) == text
    next_line = 1
    for section in sections:
        assert section.start_line == next_line
        count = len(split_lines(section.text))
        assert 0 < count <= MAX_SECTION_LINES
        next_line += count
        assert section.end_line == next_line - 1
