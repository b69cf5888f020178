import time

from textual.content import Content

from hga_chat.screen.transcript.highlight import Colouring
from hga_chat.screen.transcript.pieces import Piece
from hga_chat.screen.transcript.rows import text_rows

PATIENCE_S = 10.0
CODE = "```python\nx = 'sea'\n```"


def plain(source):
    return Piece("answer", text_rows(Content("x = 'sea'")), source)


def shown(colouring):
    end = time.monotonic() + PATIENCE_S
    while not colouring.show():
        assert time.monotonic() < end, "nothing was highlighted"
        time.sleep(0.005)


def test_code_gets_its_colours_and_keeps_its_text():
    colouring, piece = Colouring(), plain(CODE)
    before = piece.rows
    colouring.queue(piece)
    shown(colouring)
    (row,) = piece.rows
    assert row.plain == before[0].plain
    assert len({str(span.style) for span in row.line.content.spans}) > 1
    assert not colouring.show()


def test_a_failing_highlighter_does_not_stop_the_thread(monkeypatch):
    from hga_chat.screen.transcript import highlight as module

    def fails_once(source):
        monkeypatch.undo()
        raise ValueError("no colours")

    monkeypatch.setattr(module, "render", fails_once)
    colouring, first, second = Colouring(), plain(CODE), plain(CODE)
    before = first.rows
    colouring.queue(first)
    colouring.queue(second)
    shown(colouring)
    assert first.rows is before
    assert second.rows is not before
