"""Old turns keep their text and little else."""

import gc

import torch
from textual.content import Content, Span
from textual.strip import Strip
from textual.widget import Widget

from hga_chat.screen.trace import map_view as map_view
from hga_chat.screen.transcript import widget as transcript
from hga_chat.screen.transcript.rows import TableGrid, TextRow

ANSWER = """The dome was closed.

- one `word`
- two **words**

| a | b |
|---|---|
| 1 | 2 |

```python
calm = 1
```
"""
DRAWN = (Content, Span, Strip, TextRow, TableGrid)


def alive(*kinds):
    gc.unfreeze()
    gc.collect()
    return sum(issubclass(type(found), kinds) for found in gc.get_objects())


async def asked(app, pilot, until, questions):
    for question in questions:
        app.flow.send(f"Question {question}?")
        await until(pilot, lambda: app.flow.is_free and app.transcript.colouring.is_done)


async def test_a_turn_leaves_few_objects_behind(scripted, answer, opened, until, monkeypatch):
    monkeypatch.setattr(map_view, "TURNS_WITH_TOKENS", 2)
    monkeypatch.setattr(transcript, "CACHED_PIECES", 10)
    script = scripted([answer(ANSWER, {12: 1.0, 40: 0.2})] * 15)
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        await asked(app, pilot, until, range(5))
        before, widgets = alive(*DRAWN), alive(Widget)
        await asked(app, pilot, until, range(5, 15))
        assert alive(Widget) == widgets
        assert (alive(*DRAWN) - before) / 10 < 20
        assert [turn.text for turn in app.transcript.turns] == [ANSWER] * 15


async def test_turns_are_not_frozen(scripted, answer, opened, until):
    script = scripted([answer(ANSWER)] * 4)
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        await asked(app, pilot, until, range(1))
        before = gc.get_freeze_count()
        await asked(app, pilot, until, range(1, 4))
        assert gc.get_freeze_count() <= before


async def test_nothing_stays_frozen_after_the_end(scripted, answer, opened, until):
    script = scripted([answer(ANSWER)])
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


async def test_arrays_of_old_turns_are_small(scripted, answer, opened, until, monkeypatch):
    monkeypatch.setattr(map_view, "TURNS_WITH_TOKENS", 2)
    script = scripted([answer(ANSWER, {12: 1.0, 40: 0.2})] * 6)
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        await asked(app, pilot, until, range(1))
        first = app.transcript.turns[0]
        total = first.trace.total
        await asked(app, pilot, until, range(1, 6))
        held = [value for value in vars(first.trace).values() if torch.is_tensor(value)]
        assert sum(tensor.nbytes for tensor in held) <= 2 * 2 * (len(total) + 16)
        torch.testing.assert_close(
            torch.tensor(first.trace.total), torch.tensor(total), rtol=1e-3, atol=1e-6
        )
        assert app.flow.view.readers(180, 200)[0][0] is first


async def test_a_folded_turn_is_drawn_as_before(scripted, answer, opened, until):
    script = scripted([answer(ANSWER, {12: 1.0})])
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        await asked(app, pilot, until, range(1))
        (turn,) = app.transcript.turns
        rows = [piece.rows for piece in turn.pieces]
        turn.fold()
        kinds = {piece.kind for piece in turn.pieces if piece._rows is None}
        assert kinds == {"question", "answer", "source"}
        assert [[row.plain for row in piece.rows] for piece in turn.pieces] == [
            [row.plain for row in of_piece] for of_piece in rows
        ]
