import pytest
from textual.content import Content

from hga_chat.screen.transcript import stack as stack_module
from hga_chat.screen.transcript.pieces import Piece
from hga_chat.screen.transcript.rows import text_rows
from hga_chat.screen.transcript.search import find
from hga_chat.screen.transcript.stack import Stack


def piece(text, gap=False):
    return Piece("answer", text_rows(Content(text)), text, gap)


def stacked(*pieces, width=10):
    stack = Stack()
    stack.width = width
    stack.replace(0, pieces)
    return stack


def test_lines_rows_and_pieces_map_to_each_other():
    # Ten cells: "aaaa bbbb cccc" takes two lines.
    stack = stacked(piece("aaaa bbbb cccc\nd"), piece("e", gap=True))
    assert stack.height == 5
    assert [stack.index_at(y) for y in (0, 2, 3, 4, 99)] == [0, 0, 1, 1, 1]
    assert [stack.pieces[0].row_at(y) for y in (0, 1, 2)] == [(0, 0), (0, 1), (1, 0)]
    assert [stack.pieces[1].row_at(y) for y in (0, 1)] == [(-1, 0), (0, 0)]
    assert (stack.first_row(1), stack.index_of_row(1), stack.index_of_row(2)) == (2, 0, 1)


def test_replacing_the_end_keeps_the_layout_of_the_beginning(monkeypatch):
    first, second = piece("one"), piece("two")
    stack = stacked(first, second)
    measured = []
    monkeypatch.setattr(Piece, "height", lambda self, width: measured.append(self) or 1)
    third = piece("three")
    stack.replace(1, [second, third])
    assert measured == [third]
    assert stack.pieces == [first, second, third]


def test_heights_are_estimated_when_time_runs_out_and_corrected_later(monkeypatch):
    pieces = [piece("aaaa bbbb cccc") for _ in range(50)]
    monkeypatch.setattr(stack_module, "LAYOUT_S", -1.0)
    stack = stacked(*pieces, width=7)
    assert not any(p.is_measured(7) for p in pieces)
    stack.measure_end(6)
    # Three lines each at seven cells.
    assert [p.is_measured(7) for p in pieces[-3:]] == [False, True, True]
    monkeypatch.setattr(stack_module, "LAYOUT_S", 10.0)
    assert not stack.refine()
    assert stack.refine()
    assert stack.height == 150


@pytest.mark.parametrize(
    ("text", "places"), [("sea", [(0, 4, 7), (1, 0, 3)]), ("Sea", [(1, 0, 3)]), ("", [])]
)
def test_search_is_case_sensitive_only_with_capitals(text, places):
    found = find(text, [piece("the sea\nSea")])
    assert [(match.row, match.start, match.end) for match in found] == places


def test_folded_rows_are_made_again():
    made = []

    def make():
        made.append(1)
        return text_rows(Content("aaaa bbbb cccc\nd"))

    folded = Piece("answer", make(), "aaaa bbbb cccc\nd", make=make)
    assert folded.height(10) == 3
    folded.fold()
    assert (folded.count, folded.height(10), len(made)) == (2, 3, 1)
    assert folded.height(5) == 4
    assert [row.plain for row in folded.rows] == ["aaaa bbbb cccc", "d"]
